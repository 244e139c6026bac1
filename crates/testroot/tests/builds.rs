//! Tests that a fake kernel builds a fake module with real make, strip and ELF readers.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "this crate does not use the engine, and these are tests"
)]

use std::fs;
use std::process::{Command, Output};

use testroot::{TestRoot, kernel_object};

fn make(root: &TestRoot, dir: &str) -> Output {
    Command::new(root.make())
        .arg(format!("-C{}", root.at("usr/lib/modules/7.2.12-arch1-1/build").display()))
        .arg(format!("M={}", root.at(dir).display()))
        .output()
        .unwrap()
}

#[test]
fn make_builds_an_object_for_the_kernel() {
    let root = TestRoot::new();
    root.kernel("7.2.12-arch1-1").pkgbase("linux").headers();
    root.source("foo", "1.0").objects(&["foo", "bar"]);
    let output = make(&root, "usr/src/foo-1.0");
    assert!(output.status.success(), "{output:?}");

    let object = fs::read(root.at("usr/src/foo-1.0/bar.ko")).unwrap();
    let text = String::from_utf8_lossy(&object);
    assert!(
        text.contains("vermagic=7.2.12-arch1-1 SMP preempt mod_unload \0name=bar\0version=1.0\0")
    );
    assert!(root.read("usr/src/foo-1.0/Module.symvers").contains("\tfoo_symbol\t"));
    assert_eq!(root.calls("make").len(), 1);
}

#[test]
fn a_broken_source_fails_with_a_compiler_error() {
    let root = TestRoot::new();
    root.kernel("7.2.12-arch1-1").headers();
    root.source("foo", "1.0").broken();
    let output = make(&root, "usr/src/foo-1.0");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("foo.c:2:2: error: #error \"this"));
}

#[test]
fn strip_accepts_the_object() {
    let root = TestRoot::new();
    let object = kernel_object("7.2.12-arch1-1", "foo", &["version=1.0"]);
    root.write("foo.ko", &object);
    let output = Command::new(root.strip()).arg("-g").arg(root.at("foo.ko")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let stripped = fs::read(root.at("foo.ko")).unwrap();
    assert!(stripped.len() < object.len());
    assert!(String::from_utf8_lossy(&stripped).contains("vermagic=7.2.12-arch1-1 SMP"));
    assert!(!String::from_utf8_lossy(&stripped).contains(".debug_info"));
}

#[test]
fn tree_is_listed() {
    let root = TestRoot::new();
    root.kernel("7.2.12-arch1-1").pkgbase("linux");
    root.link("var/lib/dkms/foo/1.0/source", root.at("usr/src/foo-1.0"));
    assert_eq!(
        root.listing("var") + &root.listing("usr/lib"),
        "var/lib/\n\
         var/lib/dkms/\n\
         var/lib/dkms/foo/\n\
         var/lib/dkms/foo/1.0/\n\
         var/lib/dkms/foo/1.0/source -> ROOT/usr/src/foo-1.0\n\
         usr/lib/modules/\n\
         usr/lib/modules/7.2.12-arch1-1/\n\
         usr/lib/modules/7.2.12-arch1-1/kernel/\n\
         usr/lib/modules/7.2.12-arch1-1/kernel/fs/\n\
         usr/lib/modules/7.2.12-arch1-1/kernel/fs/fake.ko\n\
         usr/lib/modules/7.2.12-arch1-1/modules.builtin\n\
         usr/lib/modules/7.2.12-arch1-1/modules.order\n\
         usr/lib/modules/7.2.12-arch1-1/pkgbase\n\
         usr/lib/modules/7.2.12-arch1-1/vmlinuz\n"
    );
}

#[test]
fn depmod_lists_the_objects() {
    let root = TestRoot::new();
    root.kernel("7.2.12-arch1-1").compressed("zst").object("updates/dkms/foo.ko");
    let status = Command::new(root.depmod()).args(["-a", "7.2.12-arch1-1"]).status().unwrap();
    assert!(status.success());
    assert_eq!(
        root.read("usr/lib/modules/7.2.12-arch1-1/modules.dep"),
        "kernel/fs/fake.ko.zst:\nupdates/dkms/foo.ko:\n"
    );
    assert_eq!(root.calls("depmod"), ["-a 7.2.12-arch1-1"]);
}
