//! Tests of the facts about arriving packages.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::arriving::{CACHE, FOO, ask, configure, each, root};

#[test]
fn describes_arriving_packages() {
    let root = root();
    root.install("linux", "7.1-1", [""], "");
    let modules = "usr/lib/modules/7.2";
    let object = |number| format!("{modules}/kernel/fs/m{number:02}.ko.zst");
    let mut content: Vec<_> = (1..=12).map(object).collect();
    content.extend(["modules.order", "updates/z.ko"].map(|path| format!("{modules}/{path}")));
    content.push("usr/lib/modules/7.2-rt/kernel/a.ko".to_owned());
    let content: Vec<_> = content.iter().map(String::as_str).collect();
    root.pack("home/linux.pkg.tar.zst", "linux", "7.2-1", &content, &["size=4711"]);

    let order = format!("{modules}/modules.order");
    let answer = ask(&root, &["pacman", "-U", "linux.pkg.tar.zst"], &[&order]);
    let mut objects: Vec<_> = (1..=9).map(object).collect();
    objects.insert(0, "usr/lib/modules/7.2-rt/kernel/a.ko".to_owned());
    let mut modules_of_kernel: Vec<_> = (1..=12).map(|number| format!("m{number:02}")).collect();
    modules_of_kernel.insert(0, "a".to_owned());
    let expected = json!({
        "packages": [{
            "name": "linux",
            "version": "7.2-1",
            "file": root.at("home/linux.pkg.tar.zst"),
            "installed": "7.1-1",
            "foreign": true,
            "unchanged": false,
            "removes": [],
            "bound": [],
            "size": 4711,
            "objects": objects,
            "modules": modules_of_kernel,
            "outside": false,
            "not_extracted": [],
            "paths": [order],
        }],
        "unresolved": [],
        "toolchain": [],
        "upgrade": false,
        "command": ["pacman", root.at("script"), "-U", "linux.pkg.tar.zst"],
    });
    assert_eq!(answer, expected);
}

#[test]
fn names_the_files_that_pacman_does_not_extract() {
    let root = root();
    let options = "NoExtract = usr/src/foo-1/doc/* !*/doc/needed etc/*\nNoExtract = *.md";
    configure(&root, "etc/pacman.conf", CACHE, options);
    let files =
        ["README.md", "doc/a", "doc/needed", "foo.c"].map(|it| format!("usr/src/foo-1/{it}"));
    let mut content: Vec<&str> = files.iter().map(String::as_str).collect();
    content.extend([FOO, "etc/foo"]);
    root.pack("home/foo.pkg.tar.zst", "foo-dkms", "1-1", &content, &[]);
    let answer = ask(&root, &["pacman", "-U", "foo.pkg.tar.zst"], &[FOO]);
    assert_eq!(each(&answer, "not_extracted"), [&json!([files[0], files[1]])]);
}

#[test]
fn tells_whether_a_source_has_files_elsewhere() {
    let root = root();
    let outside = |files: &[&str]| {
        let content = [&["usr/src/foo-1/dkms.conf"], files].concat();
        root.pack("foo.pkg.tar.zst", "foo-dkms", "1-1", &content, &[]);
        let file = root.at("foo.pkg.tar.zst");
        let answer = root.answer(&["arriving", file.to_str().unwrap()], b"");
        each(&answer, "outside") == [true]
    };
    assert!(!outside(&["usr/src/foo-1/foo.c", "usr/lib/modprobe.d/foo.conf", "usr/share/foo"]));
    assert!(outside(&["usr/lib/foo/foo.c"]));
}

#[test]
fn names_packages_without_targets_that_remove_others() {
    let root = root();
    root.install("foo-dkms", "1-1", ["usr/src/foo-1/dkms.conf"], "");
    root.pack("home/bar.pkg.tar.zst", "bar-dkms", "1-1", &["usr/src/bar-1/dkms.conf"], &[]);
    root.pack("home/foo.pkg.tar.zst", "foo", "1-1", &["usr/share/foo"], &["conflict=foo-dkms"]);
    root.pack("home/other.pkg.tar.zst", "other", "1-1", &["usr/share/other"], &[]);
    let words = ["pacman", "-U", "bar.pkg.tar.zst", "foo.pkg.tar.zst", "other.pkg.tar.zst"];
    let answer = ask(&root, &words, &["usr/src/bar-1/dkms.conf"]);
    assert_eq!(each(&answer, "name"), ["bar-dkms", "foo"]);
    assert_eq!(each(&answer, "removes"), [&json!([]), &json!(["foo-dkms"])]);
}

#[test]
fn takes_files_instead_of_targets() {
    let root = root();
    let headers = "usr/lib/modules/7.2/build/include/generated/utsrelease.h";
    root.pack(
        "h.pkg.tar.zst",
        "linux-headers",
        "7.2-1",
        &[headers, "usr/lib/modules/7.2/kernel/x"],
        &[],
    );
    root.pack("bar.pkg.tar.zst", "bar", "1-1", &["usr/bin/bar"], &[]);
    let [headers, bar, gone] =
        ["h.pkg.tar.zst", "bar.pkg.tar.zst", "gone"].map(|file| root.at(file));
    let files = [&headers, &bar, &gone].map(|path| path.to_str().unwrap());
    let answer = root.answer(&[&["arriving"], &files[..]].concat(), FOO.as_bytes());
    assert_eq!(each(&answer, "name"), ["linux-headers", "bar"]);
    let paths = json!(["usr/lib/modules/7.2/build/include/"]);
    assert_eq!(each(&answer, "paths"), [&paths, &json!([])]);
    assert_eq!(answer["unresolved"], json!([gone]));
}

#[test]
fn names_packages_that_are_removed() {
    let root = root();
    let provides = |provision| format!("%PROVIDES%\n{provision}\n\n");
    root.install("foo-dkms", "1-1", [FOO], "");
    root.install("conflicting", "1-1", [""], "%CONFLICTS%\nfoo-dkms\n\n");
    root.install("old", "1-1", [""], "");
    root.install("new", "2-1", [""], "");
    root.install("provider", "1-1", [""], &provides("virtual=2"));
    root.install("unversioned", "1-1", [""], &provides("virtual"));
    root.install("replaced", "1-1", [""], "");
    root.install("other", "1-1", [""], "%CONFLICTS%\nfoo-dkms<1\n\n");
    let relations = [
        "conflict=old<2",
        "conflict=new<2",
        "conflict=virtual>=2",
        "conflict=foo-dkms",
        "replaces=replaced",
    ];
    let file = format!("{CACHE}/foo.pkg.tar.zst");
    root.pack(&file, "foo-dkms", "1-2", &[FOO], &relations);

    let path = root.at(&file);
    let answer = ask(&root, &["pacman", "-U", path.to_str().unwrap()], &[FOO]);
    assert_eq!(each(&answer, "removes"), [&json!(["conflicting", "old", "provider"])]);
    // pacman replaces packages only in an upgrade of the system.
    let answer = ask(&root, &["pacman", "-Syu"], &[FOO]);
    assert_eq!(each(&answer, "removes"), [&json!(["conflicting", "old", "provider", "replaced"])]);
}

#[test]
fn names_packages_that_are_bound_to_a_version() {
    let root = root();
    let order = "usr/lib/modules/7.2/modules.order";
    let linux = format!("{CACHE}/linux.pkg.tar.zst");
    root.pack(&linux, "linux", "7.2-1", &[order], &[]);
    let depends = [
        ("nvidia", "depend=linux=7.2"),
        ("zfs-linux", "depend=linux=7.2-1"),
        ("absent", "depend=linux=7.2-1"),
        ("older", "depend=linux=7.1"),
        ("release", "depend=linux=7.2-2"),
        ("loose", "depend=linux>=7.2"),
    ];
    let mut files = vec![linux.clone()];
    for (name, depends) in depends {
        let file = format!("srv/{name}.pkg.tar.zst");
        root.pack(&file, name, "1-1", &["usr/x"], &[depends]);
        if name != "absent" {
            root.install(name, "0-1", [""], "");
        }
        files.push(file);
    }
    root.repository("own", &files.iter().map(String::as_str).collect::<Vec<_>>());

    let answer = ask(&root, &["pacman", "-Syu"], &[order]);
    assert_eq!(each(&answer, "bound"), [&json!(["nvidia", "zfs-linux"])]);
    let answer = ask(&root, &["pacman", "-S", "linux", "own/absent"], &[order]);
    assert_eq!(each(&answer, "bound"), [&json!(["absent", "nvidia", "zfs-linux"])]);
    let [linux, absent] = [&linux, "srv/absent.pkg.tar.zst"].map(|file| root.at(file));
    let words = ["pacman", "-U", linux.to_str().unwrap(), absent.to_str().unwrap()];
    assert_eq!(
        each(&ask(&root, &words, &[order]), "bound"),
        [&json!(["absent", "nvidia", "zfs-linux"])]
    );
}

#[test]
fn names_the_toolchain_that_is_replaced() {
    let root = root();
    for name in ["gcc", "make", "glibc", "lld"] {
        root.install(name, "2-1", [""], "");
    }
    let mut files = Vec::new();
    for (name, version) in
        [("gcc", "3-1"), ("make", "2-1"), ("glibc", "1-1"), ("lld", "2-2"), ("clang", "3-1")]
    {
        let file = format!("srv/{name}.pkg.tar.zst");
        root.pack(&file, name, version, &["usr/x"], &[]);
        files.push(file);
    }
    root.repository("own", &files.iter().map(String::as_str).collect::<Vec<_>>());
    let replaced = |words: &[&str]| {
        let answer = ask(&root, words, &[]);
        let tools = answer["toolchain"].as_array().unwrap().clone();
        let of = |tool: &Value, key: &str| tool[key].as_str().unwrap().to_owned();
        tools
            .iter()
            .map(|tool| ["name", "version", "installed"].map(|key| of(tool, key)).join(" "))
            .collect::<BTreeSet<_>>()
    };
    let set = |tools: &[&str]| tools.iter().map(|&tool| tool.to_owned()).collect::<BTreeSet<_>>();

    assert_eq!(replaced(&["pacman", "-Syu"]), set(&["gcc 3-1 2-1", "lld 2-2 2-1"]));
    assert_eq!(replaced(&["packagekitd"]), set(&["gcc 3-1 2-1", "lld 2-2 2-1"]));
    assert_eq!(replaced(&["pacman", "-Syu", "--ignore", "gcc,make"]), set(&["lld 2-2 2-1"]));
    assert_eq!(replaced(&["pacman", "-S", "own/glibc", "make"]), set(&["glibc 1-1 2-1"]));
    assert_eq!(replaced(&["pacman", "-S", "linux"]), set(&[]));
    let file = root.at("srv/glibc.pkg.tar.zst");
    assert_eq!(replaced(&["pacman", "-U", file.to_str().unwrap()]), set(&["glibc 1-1 2-1"]));
    configure(&root, "etc/pacman.conf", CACHE, "IgnorePkg = gcc ll*");
    assert_eq!(replaced(&["pacman", "-Su"]), set(&[]));
}
