//! The files for the AUR, and the package that makepkg builds from them. The rules are those of
//! namcap(1) that apply to this package.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rstest::rstest;
use stories::{Root, find};

use crate::fixture::{kernel, release};

const RELEASE: [&str; 2] = [
    include_str!("../../../packaging/aur/alpm-dkms/PKGBUILD"),
    include_str!("../../../packaging/aur/alpm-dkms/.SRCINFO"),
];
const GIT: [&str; 2] = [
    include_str!("../../../packaging/aur/alpm-dkms-git/PKGBUILD"),
    include_str!("../../../packaging/aur/alpm-dkms-git/.SRCINFO"),
];
const INSTALL: &str = include_str!("../../../packaging/aur/alpm-dkms/alpm-dkms.install");
const MANIFEST: &str = include_str!("../../../Cargo.toml");

/// Returns the values of a field of a .SRCINFO or .PKGINFO.
fn values<'a>(text: &'a str, field: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(" = "));
    lines.filter(|(key, _)| *key == field).map(|(_, value)| value).collect()
}

/// Returns the value of a key of the workspace's Cargo.toml.
fn manifest(key: &str) -> &'static str {
    values(MANIFEST, key).first().expect(key).trim_matches('"')
}

#[rstest]
#[case::of_a_release(RELEASE)]
#[case::of_the_latest_commit(GIT)]
fn srcinfo_is_what_makepkg_prints(#[case] files: [&str; 2]) {
    let [pkgbuild, srcinfo] = files;
    let root = Root::ready();
    root.write("srv/aur/PKGBUILD", pkgbuild);
    root.write("srv/aur/alpm-dkms.install", INSTALL);
    root.run("chown", &["-R", "builder:", "/srv/aur"]).ok();
    let printed = root.shell("cd /srv/aur && runuser -u builder -- makepkg --printsrcinfo").ok();
    assert_eq!(printed.text.trim_end(), srcinfo.trim_end());
}

/// missing-maintainer, missing-url, missing-checksums, extra-var-begins-without-underscore,
/// pkgname-in-description.
#[rstest]
#[case::of_a_release(RELEASE)]
#[case::of_the_latest_commit(GIT)]
fn pkgbuild_follows_the_rules(#[case] files: [&str; 2]) {
    let [pkgbuild, srcinfo] = files;
    let maintainer = pkgbuild.lines().next().and_then(|line| line.strip_prefix("# Maintainer: "));
    let (name, address) = maintainer.and_then(|line| line.split_once(" <")).expect("a maintainer");
    assert!(!name.is_empty() && address.contains('@') && address.ends_with('>'), "{address}");

    assert_eq!(values(srcinfo, "url"), [manifest("repository")]);
    assert_eq!(values(srcinfo, "license"), [manifest("license")]);
    assert_eq!(values(srcinfo, "arch"), ["x86_64", "aarch64"]);
    assert_eq!(values(srcinfo, "source").len(), values(srcinfo, "sha256sums").len());
    let about = values(srcinfo, "pkgdesc");
    assert!(!about[0].contains("alpm-dkms") && about[0].len() <= 80, "{about:?}");
    for optional in values(srcinfo, "optdepends") {
        assert!(optional.contains(": "), "{optional}: no reason");
    }

    // The variables of PKGBUILD(5).
    let known = "pkgname pkgver pkgrel pkgdesc arch url license depends makedepends optdepends \
                 provides conflicts backup options install source sha256sums";
    let known: BTreeSet<&str> = known.split(' ').collect();
    for line in pkgbuild.lines().filter(|line| !line.starts_with(['\t', '#', ' '])) {
        if let Some((name, _)) = line.split_once('=') {
            assert!(name.starts_with('_') || known.contains(name), "{name}");
        }
    }
}

/// The two PKGBUILDs differ only where they must, and have the version of the programs.
#[test]
fn both_packages_have_the_same_metadata() {
    let [release, git] = [RELEASE[1], GIT[1]];
    assert_eq!(values(release, "pkgver"), [manifest("version")]);
    let differs = ["pkgbase", "pkgname", "pkgver", "provides", "conflicts", "source"];
    let shared = |text: &str| {
        let lines = text.lines().map(str::trim).filter(|line| *line != "makedepends = git");
        lines
            .filter(|line| line.split_once(" = ").is_none_or(|(key, _)| !differs.contains(&key)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(shared(git), shared(release));
    assert_eq!(values(git, "conflicts"), ["alpm-dkms", "dkms"]);
}

/// The directory in which [`unpacked`] has unpacked the package.
const UNPACKED: &str = "srv/unpacked";

/// Returns a root in which our package is unpacked, and the lines of `bsdtar -tv`.
fn unpacked() -> (Root, Vec<String>) {
    let root = Root::ready();
    let file = find("alpm-dkms").file;
    root.shell(&format!("mkdir /{UNPACKED} && bsdtar -xpf {file} -C /{UNPACKED}")).ok();
    let list = root.run("bsdtar", &["--numeric-owner", "-tvf", &file]).ok();
    let lines = list.lines().into_iter().map(str::to_owned).collect();
    (root, lines)
}

/// incorrect-owner, file-not-world-readable, directory-not-world-executable, setuid,
/// empty-directory, invalid-filename, dangling-symlink, non-fhs-man-page, incorrect-library-location.
#[test]
fn files_of_the_package_follow_the_rules() {
    let (root, lines) = unpacked();
    let mut directories = BTreeSet::new();
    let mut parents = BTreeSet::new();
    for line in &lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], [words[2], words[3]], words[8]);
        if path.starts_with('.') {
            continue; // metadata
        }
        assert_eq!(owner, ["0", "0"], "{line}");
        assert!(path.is_ascii(), "{line}");
        let want: &[&str] = match &mode[..1] {
            "d" => &["drwxr-xr-x"],
            "l" => &["lrwxrwxrwx"],
            _ => &["-rw-r--r--", "-rwxr-xr-x"],
        };
        assert!(want.contains(&mode), "{line}");
        let path = path.trim_end_matches('/');
        let tops = ["etc", "usr"];
        assert!(tops.contains(&path.split('/').next().unwrap()), "{line}");
        let local = ["usr/local", "usr/share/licenses", "usr/etc", "usr/lib64", "usr/sbin"];
        assert!(!local.iter().any(|top| path.starts_with(top)), "{line}");
        if mode.starts_with('d') {
            directories.insert(path.to_owned());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            parents.insert(parent.to_owned());
        }
        if mode.starts_with('l') {
            let target = root.path(&format!("{UNPACKED}/{path}"));
            assert!(target.exists(), "dangling: {line}");
        }
    }
    let empty: Vec<_> = directories.difference(&parents).collect();
    assert_eq!(empty, [""; 0], "empty directories");

    let info = root.read(&format!("{UNPACKED}/.PKGINFO"));
    for file in values(&info, "backup") {
        assert!(root.exists(&format!("{UNPACKED}/{file}")), "backup: {file}");
    }
    let pages = root.files(&format!("{UNPACKED}/usr/share/man"));
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man");
    let mut want: Vec<String> = fs::read_dir(man)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .map(|page| format!("man{}/{page}.gz", page.rsplit_once('.').unwrap().1))
        .collect();
    want.sort();
    assert_eq!(pages, want);
}

/// The package of Arch Linux that contains a library or an interpreter.
fn owner(file: &str) -> &'static str {
    match file {
        "libc.so.6" | "libm.so.6" | "ld-linux-x86-64.so.2" | "ld-linux-aarch64.so.1" => "glibc",
        "libgcc_s.so.1" => "gcc-libs",
        "libalpm.so.16" => "pacman",
        "/bin/sh" | "/bin/bash" => "bash",
        _ => panic!("the package of {file} is unknown to this test"),
    }
}

/// elffile-not-in-allowed-dirs, elffile-unstripped, elffile-with-execstack, elffile-nonstack,
/// elffile-without-relro, elffile-without-pie, insecure-rpath, dependency-detected-not-included.
#[test]
fn programs_of_the_package_follow_the_rules() {
    let (root, _) = unpacked();
    let info = root.read(&format!("{UNPACKED}/.PKGINFO"));
    let depends = values(&info, "depend");
    let mut programs = 0;
    for path in root.files(UNPACKED) {
        let file = format!("/{UNPACKED}/{path}");
        let bytes = root.bytes(&file);
        if let Some(script) = bytes.strip_prefix(b"#!") {
            let line = String::from_utf8_lossy(script).lines().next().unwrap_or("").to_owned();
            let interpreter = line.split_whitespace().next().unwrap_or_default();
            // Files that a shell reads itself have no such line.
            assert!(depends.contains(&owner(interpreter)), "{path}: {interpreter}");
        }
        if !bytes.starts_with(b"\x7fELF") {
            continue;
        }
        programs += 1;
        assert!(path.starts_with("usr/bin/") || path.starts_with("usr/lib/"), "{path}");
        let show = ["--wide", "--file-header", "--sections", "--segments", "--dynamic", &file];
        let elf = root.run("readelf", &show).ok().lacks("RPATH").lacks("RUNPATH");
        let elf = elf.has("DYN (Position-Independent").has("GNU_RELRO").has("BIND_NOW");
        let elf = elf.lacks(".symtab").lacks(".debug_");
        let stack = elf.lines().into_iter().find(|line| line.contains("GNU_STACK")).unwrap_or("");
        assert!(stack.contains(" RW ") && !stack.contains('E'), "{path}: {stack}");
        let needed = elf.lines().into_iter().filter(|line| line.contains("(NEEDED)"));
        let libraries = needed.filter_map(|line| line.split_once('[')?.1.strip_suffix(']'));
        for library in libraries {
            assert!(depends.contains(&owner(library)), "{path}: {library}");
        }
        // What makepkg warns about: paths of the directories in which the package was built.
        for build in ["/build/src", "/opt/cargo"] {
            let found = bytes.windows(build.len()).any(|window| window == build.as_bytes());
            assert!(!found, "{path} contains {build}");
        }
    }
    assert_eq!(programs, 8);
}

/// An image-based system boots with an empty /var. tmpfiles.d(5) creates the tree, and so does the
/// first transaction.
#[test]
fn modules_are_built_with_an_empty_var() {
    let root = Root::ready();
    root.read("usr/lib/tmpfiles.d/alpm-dkms.conf")
        .lines()
        .find(|line| *line == "d /var/lib/dkms 0755 root root -")
        .expect("a line for the tree");
    root.shell("rm -r /var/lib/dkms").ok();
    root.dkms(&["status"]).ok();
    root.install(&[&kernel("linux", 1)[..], &[find("bbswitch")]].concat()).hooks_succeed();
    root.assert_works(&release(), "bbswitch");
}
