//! `pacman -r DIR`, as pacstrap and image builders run it. DIR need not be a mount point.

use stories::{Root, find};

use crate::fixture::{kernel, release};

/// The dkms tree, the kernels and the mounts outside DIR do not change.
#[test]
fn modules_are_built_in_a_root_that_is_not_a_mount_point() {
    let root = Root::ready();
    let nested_root = root.nested_root();
    let (mounts, snapshot) = (root.mounts(), root.snapshot("var/lib/dkms"));
    let lts = find("linux-lts-1").content;
    let packages =
        [&kernel("linux", 1)[..], &kernel("linux-lts", 1), &["bbswitch", "acpi-call"].map(find)]
            .concat();
    let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
    root.pacman(&[&["-r", &nested_root, "-U"], &files[..]].concat()).ok().hooks_succeed();

    for release in [&release(), &lts] {
        for module in ["acpi_call", "bbswitch"] {
            let modinfo = ["modinfo", "-k", release, "-F", "vermagic", module];
            root.run("chroot", &[&[nested_root.as_str()], &modinfo[..]].concat()).ok().has(release);
            let object =
                format!("{nested_root}/usr/lib/modules/{release}/updates/dkms/{module}.ko.zst");
            assert!(root.exists(&object), "{object} is missing");
        }
    }
    let status = root.run("chroot", &[&nested_root, "dkms", "status"]).ok();
    assert_eq!(status.text.matches("installed").count(), 4, "{}", status.text);
    for left in [".pending", ".build"] {
        assert_eq!(root.names(&format!("{nested_root}/var/lib/dkms/{left}")), [""; 0]);
    }

    // The machine around the root is unchanged.
    assert_eq!(root.mounts(), mounts);
    root.snapshot("var/lib/dkms").assert_matches(&snapshot, "outside the root");
    assert_eq!(root.kernels(), [""; 0]);
    assert_eq!(root.processes(), []);
}
