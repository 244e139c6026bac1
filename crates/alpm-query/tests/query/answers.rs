//! Tests of lookups.

use std::fs;

use crate::machine::Machine;

/// Returns a root whose database contains `linux`, `linux-headers` and `zfs-dkms`.
fn root() -> Machine {
    let root = Machine::new();
    root.install("linux", "1.0-1", ["pkgbase", "vmlinuz", "modules.order"].map(in_kernel), "");
    root.install("linux-headers", "1.0-1", ["build/", "build/include/"].map(in_kernel), "");
    root.install("zfs-dkms", "1.0-1", ["usr/src/zfs-2.4.4/", "usr/src/zfs-2.4.4/dkms.conf"], "");
    root.write(&in_kernel("pkgbase"), "linux\n");
    root.write("usr/lib/modules/7.2.13-lts/pkgbase", "linux-lts\n");
    root
}

fn in_kernel(path: &str) -> String {
    format!("usr/lib/modules/7.2.13-arch1-1/{path}")
}

#[test]
fn finds_owners_of_paths() {
    let root = root();
    let paths = ["owner", "usr/src/zfs-2.4.4/dkms.conf", "/usr/src/zfs-2.4.4", "usr/src/none"];
    assert_eq!(
        root.answer(&paths, b""),
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
        root.answer(&["batch"], input),
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
    root.write("var/lib/pacman/db.lck", "");
    root.answer(&["kernel", "7.2.13-arch1-1"], b"");
    assert!(root.at("var/lib/pacman/db.lck").exists());
}

#[test]
fn accepts_any_bytes() {
    let root = root();
    let found = root.answer(&["batch"], b"owner \xff\xfe\nowner a\0b\n\0\n\nkernel ..\n");
    assert_eq!(found["owners"]["\u{fffd}\u{fffd}"], serde_json::Value::Null);
}

#[test]
fn uses_the_dbpath_in_pacman_conf() {
    let root = root();
    root.write("etc/pacman.conf", "[options]\n#DBPath = /no/\nDBPath = /opt/db/\n");
    fs::create_dir(root.at("opt")).unwrap();
    fs::rename(root.at("var/lib/pacman"), root.at("opt/db")).unwrap();
    let found = root.answer(&["owner", "usr/src/zfs-2.4.4"], b"");
    assert_eq!(found["owners"]["usr/src/zfs-2.4.4"]["name"], "zfs-dkms");
}

#[test]
fn prints_errors_in_one_line() {
    let empty = Machine::new();
    fs::remove_dir_all(empty.at("var")).unwrap();
    for words in [["owner", "x"], ["remove", "x"], ["arriving", "x"]] {
        let output = empty.run(&words, b"");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    }
    assert_eq!(fs::read_dir(empty.at("")).unwrap().count(), 0, "no database was created");
}
