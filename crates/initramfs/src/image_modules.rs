//! Lists the kernel modules in a kernel's images.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dkms_engine::machine::{Kernel, Machine};

use crate::generators::Generator;
use crate::image::KmodName;

/// Returns the path of each of a kernel's images, with the names of the kernel modules in the
/// image. In the names, `_` replaces `-`. Omits images that cannot be listed.
#[must_use]
pub fn modules_in_images(
    machine: &Machine,
    generator: &Generator,
    kernel: &Kernel,
) -> Vec<(PathBuf, BTreeSet<String>)> {
    let names =
        |modules: BTreeSet<KmodName>| modules.iter().map(|it| it.as_str().to_owned()).collect();
    let images = generator.images(machine, kernel).into_iter();
    images
        .filter_map(|image| {
            let contents = generator.list(&image.below(&machine.trees.root)).ok()?;
            Some((image.path, names(contents.modules)))
        })
        .collect()
}
