//! Tests of the program with the real libalpm and a small handwritten database.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "this program does not use the engine; this file contains only tests"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Returns a root whose database contains `linux`, `linux-headers` and `zfs-dkms`.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "var/lib/pacman/local/ALPM_DB_VERSION", "9\n");
    package(root.path(), "linux", &["pkgbase", "vmlinuz", "modules.order"].map(in_kernel));
    package(root.path(), "linux-headers", &["build/", "build/include/"].map(in_kernel));
    package(
        root.path(),
        "zfs-dkms",
        &["usr/src/zfs-2.4.4/".into(), "usr/src/zfs-2.4.4/dkms.conf".into()],
    );
    write(root.path(), &in_kernel("pkgbase"), "linux\n");
    write(root.path(), "usr/lib/modules/7.2.13-lts/pkgbase", "linux-lts\n");
    root
}

fn in_kernel(path: &str) -> String {
    format!("usr/lib/modules/7.2.13-arch1-1/{path}")
}

fn package(root: &Path, name: &str, files: &[String]) {
    let dir = format!("var/lib/pacman/local/{name}-1.0-1");
    write(
        root,
        &format!("{dir}/desc"),
        &format!("%NAME%\n{name}\n\n%VERSION%\n1.0-1\n\n%ARCH%\nany\n\n"),
    );
    write(root, &format!("{dir}/files"), &format!("%FILES%\n{}\n\n", files.join("\n")));
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(root: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alpm-query"))
        .arg("--root")
        .arg(root)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn answer(root: &Path, words: &[&str], input: &[u8]) -> serde_json::Value {
    let output = run(root, words, input);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn finds_owners_of_paths() {
    let root = root();
    let paths = ["owner", "usr/src/zfs-2.4.4/dkms.conf", "/usr/src/zfs-2.4.4", "usr/src/none"];
    assert_eq!(
        answer(root.path(), &paths, b""),
        serde_json::json!({"owners": {
            "usr/src/zfs-2.4.4/dkms.conf": {"name": "zfs-dkms", "version": "1.0-1"},
            "usr/src/zfs-2.4.4": {"name": "zfs-dkms", "version": "1.0-1"},
            "usr/src/none": null,
        }, "kernels": {}})
    );
}

#[test]
fn finds_packages_of_kernels() {
    let root = root();
    let input =
        b"kernel 7.2.13-arch1-1\nkernel 7.2.13-lts\nkernel none\nowner usr/src/zfs-2.4.4/\n";
    let package = |name| serde_json::json!({"name": name, "version": "1.0-1"});
    assert_eq!(
        answer(root.path(), &["batch"], input),
        serde_json::json!({"owners": {"usr/src/zfs-2.4.4/": package("zfs-dkms")}, "kernels": {
            "7.2.13-arch1-1": {
                "kernel": package("linux"),
                "headers": package("linux-headers"),
                "headers_package": "linux-headers",
            },
            "7.2.13-lts": {"kernel": null, "headers": null, "headers_package": "linux-lts-headers"},
            "none": {"kernel": null, "headers": null, "headers_package": null},
        }})
    );
}

#[test]
fn answers_while_pacman_holds_its_lock() {
    let root = root();
    write(root.path(), "var/lib/pacman/db.lck", "");
    answer(root.path(), &["kernel", "7.2.13-arch1-1"], b"");
    assert!(root.path().join("var/lib/pacman/db.lck").exists());
}

#[test]
fn accepts_any_bytes() {
    let root = root();
    let found = answer(root.path(), &["batch"], b"owner \xff\xfe\nowner a\0b\n\0\n\nkernel ..\n");
    assert_eq!(found["owners"]["\u{fffd}\u{fffd}"], serde_json::Value::Null);
}

#[test]
fn uses_the_dbpath_in_pacman_conf() {
    let root = root();
    write(root.path(), "etc/pacman.conf", "[options]\n#DBPath = /no/\nDBPath = /opt/db/\n");
    fs::create_dir(root.path().join("opt")).unwrap();
    fs::rename(root.path().join("var/lib/pacman"), root.path().join("opt/db")).unwrap();
    let found = answer(root.path(), &["owner", "usr/src/zfs-2.4.4"], b"");
    assert_eq!(found["owners"]["usr/src/zfs-2.4.4"]["name"], "zfs-dkms");
}

#[test]
fn prints_errors_in_one_line() {
    let empty = tempfile::tempdir().unwrap();
    for words in [["owner", "x"], ["remove", "x"]] {
        let output = run(empty.path(), &words, b"");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "no database was created");
}
