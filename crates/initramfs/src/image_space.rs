//! Estimates whether there is enough space for the images of one more kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::os::{durable, paths};

use crate::generators::Generator;

/// Returns a message for each directory with too little free space for the files of one more
/// kernel. Assumes that the new kernel needs as much space in each directory as the most demanding
/// one of `kernels`.
#[must_use]
pub fn lacking_space(machine: &Machine, generator: &Generator, kernels: &[Kernel]) -> Vec<String> {
    let mut needed: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for kernel in kernels {
        for (dir, size) in sizes(machine, generator, kernel) {
            let largest = needed.entry(dir).or_default();
            *largest = size.max(*largest);
        }
    }
    let message = |(dir, needed): (&PathBuf, &u64)| {
        let free = durable::free_space(&paths::below(&machine.trees.root, dir))?;
        let (dir, [free, mib]) = (dir.display(), [free, *needed].map(|bytes| bytes >> 20));
        let lacks = free < mib;
        lacks.then(|| {
            format!(
                "not enough space in {dir} for another kernel: {free} MiB free, {mib} MiB needed"
            )
        })
    };
    needed.iter().filter_map(message).collect()
}

/// Returns the total size in bytes of a kernel's images and kernel files in each directory.
fn sizes(machine: &Machine, generator: &Generator, kernel: &Kernel) -> BTreeMap<PathBuf, u64> {
    let images = generator.images(machine, kernel).into_iter();
    let files = images.flat_map(|image| [Some(image.path), image.kernel_file]).flatten();
    let sizes: BTreeMap<PathBuf, u64> = files
        .filter_map(|file| {
            let meta = fs::metadata(paths::below(&machine.trees.root, &file)).ok()?;
            Some((file, meta.len()))
        })
        .collect();
    let mut dirs: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for (file, size) in sizes {
        if let Some(dir) = file.parent() {
            *dirs.entry(dir.to_owned()).or_default() += size;
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_machine::test_machine;

    const PRESET: &str = "PRESETS=('default' 'fallback')\nALL_kver=/boot/vmlinuz-linux\n\
                          default_image=/boot/a.img\nfallback_image=/boot/b.img\n";

    #[test]
    fn adds_the_sizes_of_all_files_in_a_directory() {
        let files = [
            ("usr/bin/mkinitcpio", ""),
            ("etc/mkinitcpio.d/linux.preset", PRESET),
            ("boot/vmlinuz-linux", "kernel"),
            ("boot/a.img", "image"),
            ("boot/b.img", "another image"),
        ];
        let (_root, machine, kernel) = test_machine("7.2", &files);
        let generator = Generator::detect(&machine).expect("a generator");
        assert_eq!(sizes(&machine, &generator, &kernel), [("/boot".into(), 6 + 5 + 13)].into());
        // The files of another kernel fit into a directory with some MiB of free space.
        assert_eq!(lacking_space(&machine, &generator, std::slice::from_ref(&kernel)), [""; 0]);
    }

    #[test]
    fn reports_a_directory_that_is_too_small() {
        let files = [
            ("usr/bin/mkinitcpio", ""),
            ("etc/mkinitcpio.d/linux.preset", PRESET),
            ("boot/vmlinuz-linux", "kernel"),
        ];
        let (root, machine, kernel) = test_machine("7.2", &files);
        let generator = Generator::detect(&machine).expect("a generator");
        // A sparse file that is larger than any disk.
        let image = fs::File::create(root.path().join("boot/a.img"));
        image.and_then(|image| image.set_len(1 << 42)).expect("a file");
        let messages = lacking_space(&machine, &generator, std::slice::from_ref(&kernel));
        let [message] = messages.as_slice() else { panic!("{messages:?}") };
        assert!(message.starts_with("not enough space in /boot for another kernel: "), "{message}");
        assert!(message.ends_with(" MiB free, 4194304 MiB needed"), "{message}");
    }
}
