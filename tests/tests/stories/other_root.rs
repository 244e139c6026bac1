//! `pacman -r DIR`, as pacstrap and image builders call it: DIR is a folder that need not be a mount point.

use stories::{Root, find};

use crate::fixture::{kernel, release};

/// Story 23.
#[test]
fn modules_are_built_in_a_folder_that_is_no_mount_point() {
    let root = Root::ready();
    let folder = root.folder();
    let (mounts, picture) = (root.mounts(), root.picture("var/lib/dkms"));
    let lts = find("linux-lts-1").content;
    let packages =
        [&kernel("linux", 1)[..], &kernel("linux-lts", 1), &["bbswitch", "acpi-call"].map(find)]
            .concat();
    let files: Vec<&str> = packages.iter().map(|package| package.file.as_str()).collect();
    root.pacman(&[&["-r", &folder, "-U"], &files[..]].concat()).ok().hooks_succeed();

    for release in [&release(), &lts] {
        for module in ["acpi_call", "bbswitch"] {
            let modinfo = ["modinfo", "-k", release, "-F", "vermagic", module];
            root.run("chroot", &[&[folder.as_str()], &modinfo[..]].concat()).ok().has(release);
            let object = format!("{folder}/usr/lib/modules/{release}/updates/dkms/{module}.ko.zst");
            assert!(root.exists(&object), "{object} is missing");
        }
    }
    let status = root.run("chroot", &[&folder, "dkms", "status"]).ok();
    assert_eq!(status.text.matches("installed").count(), 4, "{}", status.text);
    for left in [".pending", ".build"] {
        assert_eq!(root.names(&format!("{folder}/var/lib/dkms/{left}")), [""; 0]);
    }

    // Nothing of it happened to the machine around it.
    assert_eq!(root.mounts(), mounts);
    root.picture("var/lib/dkms").assert_is(&picture, "outside of the folder");
    assert_eq!(root.kernels(), [""; 0]);
    assert_eq!(root.processes(), []);
}
