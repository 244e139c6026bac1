//! mkinitcpio's stand-in and a module in its images, for the stories about images.

use std::path::Path;

use stories::{Completed, PackageFile, Recipe, Root};

use crate::fixture::{kernel, object, release};
use crate::image_fixture::{IMAGE, made};

/// The hook that regenerates images, which a machine may have masked.
pub(crate) const STOCK: &str = "90-mkinitcpio-install";

/// mkinitcpio's stand-in, which makes images (the testbed's own one only says that it would).
pub(crate) fn mkinitcpio(root: &Root) -> PackageFile {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/initcpio");
    Recipe::empty("mkinitcpio", "41").files_of(&top).make(root)
}

/// A module that images hold: HOOKS of mkinitcpio.conf names it.
pub(crate) fn zfs(root: &Root, version: &str) -> PackageFile {
    Recipe::module("zfs", version).make(root)
}

/// A machine with that module in its image.
pub(crate) fn machine() -> Root {
    let root = Root::ready();
    root.write("etc/mkinitcpio.conf", "MODULES=()\nHOOKS=(base zfs)\n");
    root.write("usr/lib/initcpio/install/base", "");
    root.install(&[mkinitcpio(&root)]);
    let zfs = zfs(&root, "1.0");
    root.install(&[&kernel("linux", 1)[..], &[zfs]].concat()).hooks_succeed();
    assert_holds(&root, IMAGE, &release());
    root.assert_settled();
    made(&root);
    root
}

/// Asserts that an image holds the very object that stands in a kernel's directory.
#[track_caller]
pub(crate) fn assert_holds(root: &Root, image: &str, release: &str) {
    let object = object(release, "zfs");
    let digest = root.shell(&format!("sha256sum </{object}")).ok().text;
    let digest = digest.split(' ').next().unwrap_or_default();
    let content = root.read(image);
    assert!(content.contains(&format!("{object} {digest}")), "zfs is not in /{image}:\n{content}");
}

/// Installs the next version of the module.
pub(crate) fn bump(root: &Root) -> Completed {
    let new = zfs(root, "2.0");
    root.install(&[new])
}
