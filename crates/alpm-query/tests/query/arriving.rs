//! Tests of the search for arriving packages.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::machine::Machine;

/// A target. It is the only file in the package that the function `foo` packs.
pub const FOO: &str = "usr/src/foo-1/dkms.conf";

/// The directory of downloaded packages in the configuration of `root`.
pub const CACHE: &str = "var/cache/pacman/pkg";

/// Returns a root with a configuration and an empty repository.
pub fn root() -> Machine {
    let root = Machine::new();
    fs::create_dir_all(root.at(CACHE)).unwrap();
    configure(&root, "etc/pacman.conf", CACHE, "");
    root
}

/// Writes a configuration with one repository.
pub fn configure(root: &Machine, file: &str, cache: &str, options: &str) {
    let cache = root.at(cache);
    let text = format!("[options]\nCacheDir = {}\n{options}\n[own]\n", cache.display());
    root.write(file, text);
}

pub fn foo(root: &Machine, file: &str, version: &str) {
    root.pack(file, "foo-dkms", version, &[FOO], &[]);
}

/// Returns the answer about a transaction. The process that runs it has the command line `words`
/// and was started in the directory `home`.
pub fn ask(root: &Machine, words: &[&str], targets: &[&str]) -> Value {
    let process = root.process("home", words);
    root.answer(&["arriving", "--pacman", &process.id()], targets.join("\n").as_bytes())
}

/// Returns the value with the name `key` of each package in `answer`.
pub fn each<'a>(answer: &'a Value, key: &str) -> Vec<&'a Value> {
    answer["packages"].as_array().unwrap().iter().map(|package| &package[key]).collect()
}

/// Asserts that the answer contains exactly one package file, the one at `path`.
fn assert_found(root: &Machine, answer: &Value, path: &str) {
    assert_eq!(each(answer, "file"), [root.at(path).to_str().unwrap()], "{answer}");
    assert_eq!(answer["unresolved"], json!([]));
}

/// Asserts that the answer contains no package file, and `FOO` as the only unresolved target.
fn assert_unresolved(answer: &Value) {
    assert_eq!(each(answer, "file"), [""; 0], "{answer}");
    assert_eq!(answer["unresolved"], json!([FOO]));
}

#[test]
fn finds_files_of_the_command_line() {
    let root = root();
    foo(&root, "home/sub/a.pkg.tar.zst", "1-1");
    foo(&root, &format!("{CACHE}/foo-dkms-1-1-any.pkg.tar.zst"), "1-1");
    let absolute = root.at("home/sub/a.pkg.tar.zst");
    for words in [
        ["pacman", "-U", "sub/a.pkg.tar.zst"],
        ["pacman", "-U", absolute.to_str().unwrap()],
        ["pacman", "sub/../sub/a.pkg.tar.zst", "--upgrade"],
    ] {
        let answer = ask(&root, &words, &[FOO]);
        assert_eq!(each(&answer, "name"), ["foo-dkms"]);
        let file = each(&answer, "file")[0].as_str().unwrap();
        assert_eq!(fs::canonicalize(file).unwrap(), absolute.canonicalize().unwrap());
    }
}

#[test]
fn finds_files_as_an_aur_helper_names_them() {
    let root = root();
    foo(&root, "home/.cache/yay/foo-dkms-1-1-any.pkg.tar.zst", "1-1");
    let file = root.at("home/.cache/yay/foo-dkms-1-1-any.pkg.tar.zst");
    let config = root.at("etc/pacman.conf");
    let [file, config] = [&file, &config].map(|path| path.to_str().unwrap());
    let answer = ask(&root, &["/usr/bin/pacman", "-U", "--config", config, "--", file], &[FOO]);
    assert_found(&root, &answer, "home/.cache/yay/foo-dkms-1-1-any.pkg.tar.zst");
}

#[test]
fn finds_files_of_urls_in_the_cache() {
    let root = root();
    let file = format!("{CACHE}/zzz.pkg.tar.zst");
    foo(&root, &file, "1-1");
    foo(&root, &format!("{CACHE}/foo-dkms-1-2-any.pkg.tar.zst"), "1-2");
    let words =
        ["pacman", "-U", "https://example.org/x/zzz.pkg.tar.zst", "a://", "://b/", "file:///"];
    assert_found(&root, &ask(&root, &words, &[FOO]), &file);
}

#[test]
fn ignores_files_without_targets() {
    let root = root();
    root.pack("home/bar.pkg.tar.zst", "bar", "1-1", &["usr/bin/bar"], &[]);
    foo(&root, "home/foo.pkg.tar.zst", "1-1");
    let words = ["pacman", "-U", "bar.pkg.tar.zst", "foo.pkg.tar.zst", "foo.pkg.tar.zst"];
    let answer = ask(&root, &words, &[FOO, "usr/src/bar-1/dkms.conf"]);
    assert_eq!(each(&answer, "name"), ["foo-dkms"]);
    assert_eq!(each(&answer, "paths"), [&json!([FOO])]);
    assert_eq!(answer["unresolved"], json!(["usr/src/bar-1/dkms.conf"]));
}

#[test]
fn finds_downloads_of_an_upgrade() {
    let root = root();
    root.install("foo-dkms", "1-1", [FOO], "");
    for version in ["1-1", "1-2", "1-3"] {
        foo(&root, &format!("{CACHE}/foo-dkms-{version}-any.pkg.tar.zst"), version);
    }
    root.repository("own", &[&format!("{CACHE}/foo-dkms-1-2-any.pkg.tar.zst")]);
    for words in [["pacman", "-Syu"], ["pacman", "-S"], ["/usr/bin/pamac-daemon", "-U"]] {
        let answer = ask(&root, &words, &[FOO]);
        assert_found(&root, &answer, &format!("{CACHE}/foo-dkms-1-2-any.pkg.tar.zst"));
        assert_eq!(each(&answer, "foreign"), [false]);
        assert_eq!(each(&answer, "installed"), ["1-1"]);
    }
    let answer = root.answer(&["arriving"], FOO.as_bytes());
    assert_found(&root, &answer, &format!("{CACHE}/foo-dkms-1-2-any.pkg.tar.zst"));
    assert_eq!(answer["command"], json!([]));
    assert_eq!(answer["upgrade"], true);
}

#[test]
fn tells_the_versions_in_the_sync_databases() {
    let root = root();
    foo(&root, "srv/foo.pkg.tar.zst", "1-2");
    root.repository("own", &["srv/foo.pkg.tar.zst"]);
    let answer = root.answer(&["available", "foo-dkms", "bar-dkms"], b"");
    assert_eq!(answer["available"], json!({"foo-dkms": "1-2", "bar-dkms": null}));
}

#[test]
fn tells_whether_exactly_this_package_is_installed() {
    let root = root();
    root.install("foo-dkms", "1-1", [FOO], "");
    for (file, content) in [("same", &[FOO][..]), ("other", &[FOO, "usr/src/foo-1/new.c"])] {
        let file = format!("srv/{file}.pkg.tar.zst");
        root.pack(&file, "foo-dkms", "1-1", content, &[]);
    }
    let [same, other] = ["same", "other"].map(|it| root.at(&format!("srv/{it}.pkg.tar.zst")));
    let mtree = Command::new("bsdtar").arg("-xOqf").arg(&same).arg(".MTREE").output().unwrap();
    let unchanged = |file: &Path| {
        let answer = root.answer(&["arriving", file.to_str().unwrap()], b"");
        each(&answer, "unchanged") == [true]
    };
    assert!(!unchanged(&same), "without an entry");
    root.write("var/lib/pacman/local/foo-dkms-1-1/mtree", &mtree.stdout);
    assert!(unchanged(&same));
    assert!(!unchanged(&other));
}

#[test]
fn finds_downloads_with_unusual_names() {
    let root = root();
    // `evdi` contains a module source, but neither its package name nor its file name says so. Its
    // upgrade does not change its paths.
    let source = ["usr/", "usr/src/", "usr/src/evdi-1/", "usr/src/evdi-1/dkms.conf"];
    root.install("evdi", "1-1", source, "");
    root.install("same", "1-1", ["usr/bin/same"], "");
    let names = ["evdi", "other", "same"].map(|name| format!("{CACHE}/{name}.pkg.tar.zst"));
    root.pack(&names[0], "evdi", "1-2", &["usr/src/evdi-1/dkms.conf"], &[]);
    root.pack(&names[1], "other", "1-1", &["usr/src/other-1/dkms.conf"], &[]);
    root.pack(&names[2], "same", "1-1", &["usr/src/same-1/dkms.conf"], &[]);
    root.repository("own", &names.each_ref().map(String::as_str));
    let targets = ["evdi", "other", "same"].map(|name| format!("usr/src/{name}-1/dkms.conf"));
    let answer = ask(&root, &["pacman", "-Syu"], &targets.each_ref().map(String::as_str));
    assert_eq!(each(&answer, "name"), ["evdi", "other", "same"]);
    assert_eq!(answer["unresolved"], json!([]));
}

#[test]
fn honours_the_directories_of_the_command_line() {
    let root = root();
    let files = ["home/one", "two", "configured"].map(|dir| format!("{dir}/foo-1.pkg.tar.zst"));
    for file in &files {
        foo(&root, file, "1-1");
    }
    root.repository("own", &[&files[0]]);
    fs::create_dir(root.at("opt")).unwrap();
    fs::rename(root.at("var/lib/pacman"), root.at("opt/db")).unwrap();
    let options = format!("DBPath = {}", root.at("opt/db").display());
    configure(&root, "own.conf", "configured", &options);
    let [config, two, dbpath] = ["own.conf", "two", "opt/db"].map(|path| root.at(path));
    let [config, two, dbpath] = [&config, &two, &dbpath].map(|path| path.to_str().unwrap());
    let two = format!("--cachedir={two}");

    let answer = ask(&root, &["pacman", "-Syu", "--config", config], &[FOO]);
    assert_found(&root, &answer, &files[2]);
    assert_eq!(each(&answer, "foreign"), [false]);
    let answer = ask(&root, &["pacman", "-Syub", dbpath, &two, "--cachedir", "one"], &[FOO]);
    assert_found(&root, &answer, &files[1]);
    assert_eq!(each(&answer, "foreign"), [false]);
    let words = ["pacman", "-Syu", "--config=../own.conf", "--cachedir", "one", &two];
    assert_found(&root, &ask(&root, &words, &[FOO]), &files[0]);
}

#[test]
fn finds_the_newest_file_in_the_cache() {
    let root = root();
    let file = |number| format!("{CACHE}/{number}.pkg.tar.zst");
    for (number, days) in [(1, 3), (2, 1), (3, 2)] {
        foo(&root, &file(number), &format!("1-{number}"));
        let then = SystemTime::now() - Duration::from_secs(days * 86_400);
        fs::File::open(root.at(&file(number))).unwrap().set_modified(then).unwrap();
    }
    // A signature and an unfinished download are not packages.
    for name in ["4.pkg.tar.zst.sig", "5.pkg.tar.zst.part"] {
        fs::copy(root.at(&file(2)), root.at(&format!("{CACHE}/{name}"))).unwrap();
    }
    let answer = ask(&root, &["pamac-daemon"], &[FOO]);
    assert_found(&root, &answer, &file(2));
    assert_eq!(each(&answer, "foreign"), [true]);
    // The file that pacman was told to install has vanished, or came from standard input.
    assert_found(&root, &ask(&root, &["pacman", "-U", "gone.pkg.tar.zst"], &[FOO]), &file(2));
    assert_found(&root, &ask(&root, &["pacman", "-U", "-"], &[FOO]), &file(2));
}

#[test]
fn skips_damaged_files() {
    let root = root();
    foo(&root, "home/good.pkg.tar.zst", "1-1");
    let good = fs::read(root.at("home/good.pkg.tar.zst")).unwrap();
    for (name, length) in [("empty", 0), ("short", 10), ("half", good.len() / 2)] {
        root.write(&format!("home/{name}.pkg.tar.zst"), &good[..length]);
    }
    root.write("home/zeros.pkg.tar.zst", vec![0; 1 << 20]);
    root.write("home/text.pkg.tar.zst", "no archive\n");
    fs::create_dir(root.at("home/dir.pkg.tar.zst")).unwrap();
    std::os::unix::fs::symlink("loop.pkg.tar.zst", root.at("home/loop.pkg.tar.zst")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(root.at("home/fifo.pkg.tar.zst"))
            .status()
            .unwrap()
            .success()
    );
    root.pack("home/name.pkg.tar.zst", OsStr::from_bytes(b"foo\xff"), "1-1", &[FOO], &[]);
    fs::rename(root.at("home/good.pkg.tar.zst"), root.at("good.pkg.tar.zst")).unwrap();
    let odd = root.at("home").join(OsStr::from_bytes(b"\xff.pkg.tar.zst"));
    fs::copy(root.at("good.pkg.tar.zst"), odd).unwrap();

    let names = ["empty", "short", "half", "zeros", "text", "dir", "loop", "fifo", "name", "none"];
    let files = names.map(|name| format!("{name}.pkg.tar.zst"));
    let words: Vec<_> = ["pacman", "-U"].into_iter().chain(files.iter().map(|it| &**it)).collect();
    assert_unresolved(&ask(&root, &words, &[FOO]));

    let cache = root.at("home");
    assert_unresolved(&ask(&root, &["pamac", "-S"], &[FOO]));
    let words = ["pacman", "-S", "--cachedir", cache.to_str().unwrap()];
    assert_unresolved(&ask(&root, &words, &[FOO]));
    foo(&root, "home/good.pkg.tar.zst", "1-1");
    assert_found(&root, &ask(&root, &words, &[FOO]), "home/good.pkg.tar.zst");
}

#[test]
fn accepts_damaged_databases_and_configurations() {
    let root = root();
    let file = format!("{CACHE}/foo.pkg.tar.zst");
    foo(&root, &file, "1-1");
    for database in [&b"no archive"[..], b"", &[0; 4096]] {
        root.write("var/lib/pacman/sync/own.db", database);
        assert_found(&root, &ask(&root, &["pacman", "-Syu"], &[FOO]), &file);
    }
    fs::remove_file(root.at("etc/pacman.conf")).unwrap();
    assert_found(&root, &ask(&root, &["pacman", "-Syu"], &[FOO]), &file);
    root.write("etc/pacman.conf", b"\xff = \xff\n[options\n[]\n[a/b]\nInclude = /none\n");
    assert_found(&root, &ask(&root, &["pacman", "-Syu"], &[FOO]), &file);
}

#[test]
fn accepts_any_bytes_as_targets() {
    let root = root();
    foo(&root, "home/foo.pkg.tar.zst", "1-1");
    let process = root.process("home", &["pacman", "-U", "foo.pkg.tar.zst"]);
    let input = [FOO.as_bytes(), b"\n\n\xff\nusr\0src\n/\nfoo"].concat();
    let answer = root.answer(&["arriving", "--pacman", &process.id()], &input);
    assert_eq!(each(&answer, "paths"), [&json!([FOO])]);
    assert_eq!(answer["unresolved"], json!(["/", "foo", "usr\0src", "\u{fffd}"]));
}

#[test]
fn a_process_that_has_ended_has_no_command_line() {
    let root = root();
    let file = format!("{CACHE}/foo.pkg.tar.zst");
    foo(&root, &file, "1-1");
    let id = root.process("home", &["pacman", "-U"]).id();
    for pid in [&*id, "4294967295", "0"] {
        let answer = root.answer(&["arriving", "--pacman", pid], FOO.as_bytes());
        assert_found(&root, &answer, &file);
        assert_eq!(answer["command"], json!([]));
    }
}

#[test]
fn takes_no_lock() {
    let root = root();
    foo(&root, "home/foo.pkg.tar.zst", "1-1");
    root.write("var/lib/pacman/db.lck", "");
    let answer = ask(&root, &["pacman", "-U", "foo.pkg.tar.zst"], &[FOO]);
    assert_found(&root, &answer, "home/foo.pkg.tar.zst");
    assert!(root.at("var/lib/pacman/db.lck").exists());
}
