//! A fake or the real mkinitcpio and a module in its images, for the stories about images.

use std::path::{Path, PathBuf};

use stories::{Completed, PackageFile, Recipe, Root, real_mkinitcpio};

use crate::fixture::{kernel, object, release};
use crate::image_fixture::{IMAGE, new_images};

/// mkinitcpio's hook that regenerates images.
pub(crate) const STOCK: &str = "90-mkinitcpio-install";

/// Builds mkinitcpio, which generates images. The one in the stage `stubs` only logs.
pub(crate) fn mkinitcpio(root: &Root) -> PackageFile {
    Recipe::empty("mkinitcpio", "41").files_from(&mkinitcpio_files()).make(root)
}

/// Returns the directory with the files of mkinitcpio.
pub(crate) fn mkinitcpio_files() -> PathBuf {
    let fake = || Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/initcpio");
    real_mkinitcpio().map_or_else(fake, |stage| stage.join("package"))
}

/// Builds a module that is in the images because HOOKS in mkinitcpio.conf names it.
pub(crate) fn zfs(root: &Root, version: &str) -> PackageFile {
    Recipe::module("zfs", version).make(root)
}

/// Creates a machine with zfs in its image.
pub(crate) fn machine() -> Root {
    let root = Root::ready();
    root.write("etc/mkinitcpio.conf", "MODULES=()\nHOOKS=(base zfs)\n");
    root.install(&[mkinitcpio(&root)]);
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat()).hooks_succeed();
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    new_images(&root);
    root
}

/// Asserts that an image contains the installed object of zfs.
#[track_caller]
pub(crate) fn assert_holds(root: &Root, image: &str, release: &str) {
    let object = object(release, "zfs");
    if real_mkinitcpio().is_some() {
        let same = "cd $(mktemp -d) && lsinitcpio -x $0 >&2 && cmp $1 /$1";
        root.run("bash", &["-c", same, &format!("/{image}"), &object]).ok();
        return;
    }
    let digest = root.shell(&format!("sha256sum </{object}")).ok().text;
    let digest = digest.split(' ').next().unwrap_or_default();
    let content = root.read(image);
    assert!(content.contains(&format!("{object} {digest}")), "zfs is not in /{image}:\n{content}");
}

/// Upgrades zfs to version 2.0.
pub(crate) fn upgrade_zfs(root: &Root) -> Completed {
    let new = zfs(root, "2.0");
    root.install(&[new])
}
