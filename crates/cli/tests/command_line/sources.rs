//! Tests of adding modules from directories and archives, and of writing archives.

use std::os::unix::fs::symlink;
use std::path::Path;

use assert_cmd::Command;
use testroot::TestRoot;

use crate::fixture::{K1, K2, dkms, root, run};

/// Moves the source of `foo/1.0` out of the source tree and returns its new path.
fn checkout(root: &TestRoot) -> String {
    root.dir("srv");
    std::fs::rename(root.at("usr/src/foo-1.0"), root.at("srv/checkout")).unwrap();
    root.at("srv/checkout").display().to_string()
}

fn tar(dir: &Path, words: &[&str]) {
    Command::new("tar").current_dir(dir).args(words).assert().success();
}

#[test]
fn copies_a_directory_to_the_source_tree() {
    let root = root();
    let path = checkout(&root);
    let output = run(&root, &format!("install {path} -k {K1} -k {K2}"), 0);
    assert!(output.contains("copied the source of foo/1.0"), "{output}");
    let status = format!("foo/1.0, {K1}, x86_64: installed\nfoo/1.0, {K2}, x86_64: installed\n");
    assert_eq!(run(&root, "status", 0), status);
    assert!(root.exists("usr/src/foo-1.0/foo.c") && root.exists("srv/checkout/foo.c"));
    assert!(!root.listing("usr/src").contains(".tmp"), "{}", root.listing("usr/src"));
}

#[test]
fn a_failing_post_add_script_fails_only_add() {
    let root = root();
    let path = checkout(&root);
    let conf = root.read("srv/checkout/dkms.conf");
    root.write("srv/checkout/dkms.conf", format!("{conf}POST_ADD=fails.sh\n"));
    root.executable("srv/checkout/fails.sh", "#!/bin/sh\nexit 7\n");
    run(&root, &format!("add {path}"), 7);
    assert_eq!(run(&root, "status", 0), "foo/1.0: added\n");
    run(&root, "remove foo/1.0 --all", 0);
    run(&root, &format!("build {path} -k {K1}"), 0);
    assert_eq!(run(&root, "status", 0), format!("foo/1.0, {K1}, x86_64: built\n"));
}

#[test]
fn an_added_module_keeps_its_source() {
    let root = root();
    let path = checkout(&root);
    run(&root, &format!("add {path}/dkms.conf"), 0);
    root.write("srv/checkout/new.c", "");
    for command in ["add", "add --force", "build", "install"] {
        run(&root, &format!("{command} {path} -k {K1}"), 3);
    }
    assert!(!root.exists("usr/src/foo-1.0/new.c"));
    // After the module has been removed, the new source completely replaces the old one.
    run(&root, "remove foo/1.0 --all", 0);
    root.write("usr/src/foo-1.0/stale.c", "");
    run(&root, &format!("add {path}"), 0);
    assert!(root.exists("usr/src/foo-1.0/new.c") && !root.exists("usr/src/foo-1.0/stale.c"));
}

#[test]
fn a_source_in_the_source_tree_is_not_copied() {
    let root = root();
    root.write("usr/src/foo-1.0/marker", "");
    let path = root.at("usr/src/foo-1.0");
    let output = run(&root, &format!("add {}", path.display()), 0);
    assert!(!output.contains("copied"), "{output}");
    assert_eq!(run(&root, "status", 0), "foo/1.0: added\n");
}

#[test]
fn rejects_paths_without_a_valid_module() {
    let root = root();
    let path = checkout(&root);
    root.write("srv/empty/file", "");
    root.write("srv/my-dkms.conf", "");
    root.write("srv/nothing.tar", "");
    let before = root.listing("usr");
    for (words, code) in [
        ("add SRV/empty", 1),
        ("add SRV/my-dkms.conf", 9),
        ("add SRV/missing", 1),
        ("add SRV/nothing.tar", 3),
        ("ldtarball SRV/missing.tar", 2),
        ("ldtarball SRV/x.rpm", 2),
    ] {
        let words = words.replace("SRV", &root.at("srv").display().to_string());
        run(&root, &words, code);
    }
    for (name, conf) in [
        ("slash", "PACKAGE_NAME=a/../../etc\nPACKAGE_VERSION=1\n"),
        ("blank", "PACKAGE_NAME='a b'\nPACKAGE_VERSION=1\n"),
        ("hidden", "PACKAGE_NAME=.a\nPACKAGE_VERSION=1\n"),
        ("dash", "PACKAGE_NAME=-rf\nPACKAGE_VERSION=1\n"),
        ("version", "PACKAGE_NAME=a\nPACKAGE_VERSION=..\n"),
        ("missing", "PACKAGE_NAME=a\n"),
        ("exits", "exit 0\n"),
        ("binary", "PACKAGE_NAME=a\n\0\n"),
        ("invalid", "PACKAGE_NAME=a\nPACKAGE_VERSION=1\nBUILT_MODULE_NAME=a.ko\n"),
    ] {
        root.write("srv/checkout/dkms.conf", conf);
        let output = dkms(&root, &format!("add {path}"));
        assert_eq!(output.code, 8, "{name}: {}{}", output.out, output.errors);
        assert!(output.errors.contains("dkms.conf"), "{name}: {}", output.errors);
    }
    assert_eq!(root.listing("usr"), before);
    assert_eq!(run(&root, "status", 0), "");
}

#[test]
fn a_file_in_the_working_directory_hides_no_module() {
    let root = root();
    root.write("foo/1.0/dkms.conf", "PACKAGE_NAME=trap\nPACKAGE_VERSION=1\n");
    run(&root, "add foo/1.0", 0);
    assert_eq!(run(&root, "status foo", 0), "foo/1.0: added\n");
    root.remove("foo");
    root.write("foo", "");
    run(&root, "add foo -v 1.0", 3);
    run(&root, &format!("build foo/1.0 -k {K1}"), 0);
    assert_eq!(run(&root, "status foo", 0), format!("foo/1.0, {K1}, x86_64: built\n"));
    // A word that names no module is a path.
    root.write("bar/dkms.conf", "PACKAGE_NAME=bar\n");
    run(&root, "add bar", 8);
}

#[test]
fn an_archive_moves_a_module_to_another_machine() {
    let root = root();
    run(&root, &format!("build foo/1.0 -k {K1} -k {K2}"), 0);
    let output = run(&root, "mktarball foo/1.0 --all", 0);
    let name = format!("foo-1.0-kernel{K1}-x86_64-kernel{K2}-x86_64.dkms.tar.gz");
    assert!(output.contains(&name), "{output}");
    let archive = root.at(format!("var/lib/dkms/foo/1.0/tarball/{name}"));
    let listed = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let members = String::from_utf8(listed.stdout).unwrap();
    for member in [
        "./\n".to_owned(),
        "./dkms_source_tree/dkms.conf\n".into(),
        format!("./dkms_main_tree/{K1}/x86_64/module/foo.ko\n"),
        format!("./dkms_main_tree/{K2}/x86_64/log/make.log\n"),
    ] {
        assert!(members.contains(&member), "{member} is missing:\n{members}");
    }
    assert!(!members.contains("/."), "alpm-dkms's own files are in it:\n{members}");

    let other = crate::fixture::root();
    other.remove("usr/src/foo-1.0");
    std::fs::copy(&archive, other.at("foo.dkms.tar.gz")).unwrap();
    let file = other.at("foo.dkms.tar.gz").display().to_string();
    run(&other, &format!("ldtarball {file}"), 0);
    let built = format!("foo/1.0, {K1}, x86_64: built\nfoo/1.0, {K2}, x86_64: built\n");
    assert_eq!(run(&other, "status", 0), built);
    run(&other, &format!("ldtarball --archive={file}"), 8);
    run(&other, &format!("ldtarball {file} --force"), 0);
    run(&other, &format!("install foo/1.0 -k {K1}"), 0);
    run(&other, "remove foo/1.0 --all", 0);
}

#[test]
fn archives_can_omit_the_source_or_the_builds() {
    let root = root();
    run(&root, "mktarball foo/1.0", 3);
    run(&root, "add foo/1.0", 0);
    run(&root, &format!("mktarball foo/1.0 -k {K1}"), 6);
    let source = root.at("srv.tar.xz");
    run(&root, &format!("mktarball foo/1.0 --source-only --archive {}", source.display()), 0);
    run(&root, &format!("build foo/1.0 -k {K1}"), 0);
    let binaries = root.at("binaries.tar");
    let line =
        format!("mktarball foo/1.0 -k {K1} --binaries-only --archive={}", binaries.display());
    run(&root, &line, 0);
    run(&root, "mktarball foo/1.0 --source-only --archive bare.tgz", 0);
    assert!(root.exists("var/lib/dkms/foo/1.0/tarball/bare.tgz"));

    let other = crate::fixture::root();
    other.remove("usr/src/foo-1.0");
    run(&other, &format!("ldtarball {}", binaries.display()), 1);
    assert_eq!(other.listing("var/lib/dkms/foo"), "");
    run(&other, &format!("add {}", source.display()), 0);
    run(&other, &format!("ldtarball {} --force", binaries.display()), 0);
    assert_eq!(run(&other, "status", 0), format!("foo/1.0, {K1}, x86_64: built\n"));
}

#[test]
fn malicious_archives_change_nothing() {
    let root = root();
    root.remove("usr/src/foo-1.0");
    let conf = "PACKAGE_NAME=evil\nPACKAGE_VERSION=1\nBUILT_MODULE_NAME=evil\n\
                DEST_MODULE_LOCATION=/updates\n";
    let evil = |name: &str, words: &[&str], make: &dyn Fn(&Path)| {
        let dir = root.at(format!("made/{name}"));
        root.write(format!("made/{name}/in/dkms.conf"), conf);
        root.write(format!("made/{name}/trap"), "");
        make(&dir.join("in"));
        let file = dir.join("evil.tar").display().to_string();
        tar(&dir, &[&["-cf", file.as_str()], words].concat());
        file
    };
    let nothing: &dyn Fn(&Path) = &|_| {};
    let absolute = root.at("made/absolute/trap").display().to_string();
    let files = [
        evil("absolute", &["-P", "in", &absolute], nothing),
        evil("up", &["-P", "--transform=s,^trap,in/../../up/trap2,", "in", "trap"], nothing),
        evil("link", &["in"], &|dir| symlink("/etc", dir.join("etc")).unwrap()),
        evil("link_up", &["in"], &|dir| symlink("../../..", dir.join("up")).unwrap()),
        evil("pipe", &["in"], &|dir| {
            nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
    ];
    let before = root.listing("");
    let own = |line: &&str| !line.contains("/.cache") && !line.contains("/.bin");
    for file in files {
        let output = dkms(&root, &format!("ldtarball {file}"));
        assert_eq!(output.code, 7, "{file}: {}{}", output.out, output.errors);
        assert!(output.errors.contains("unsafe archive member"), "{}", output.errors);
        let after = root.listing("");
        let after: Vec<&str> = after.lines().filter(own).collect();
        assert_eq!(after, before.lines().collect::<Vec<_>>(), "{file}");
    }
}

#[test]
fn a_conf_splits_the_name_of_its_directory() {
    let root = root();
    root.source("xpad", "v0.11-pre-64");
    // An old version split the directory's name at the last dash.
    root.source("vbox", "4.3-1");
    root.link("var/lib/dkms/vbox-4.3/1/source", "/usr/src/vbox-4.3-1");
    // A command that names the module works on that name.
    run(&root, &format!("build vbox-4.3/1 -k {K1}"), 0);
    assert!(root.exists(format!("var/lib/dkms/vbox-4.3/1/{K1}")));
    let out = run(&root, "add xpad", 0);
    assert!(
        out.contains("note: vbox-4.3/1: renamed to vbox/4.3-1 to match its dkms.conf"),
        "{out}"
    );
    assert!(root.exists("var/lib/dkms/xpad/v0.11-pre-64/source"));
    run(&root, "autoinstall --all", 0);
    let status = run(&root, "status", 0);
    assert_eq!(status.matches("vbox/4.3-1, ").count(), 2, "{status}");
    assert_eq!(status.matches("xpad/v0.11-pre-64, ").count(), 2, "{status}");
}
