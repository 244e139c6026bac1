//! Image files: initramfs images and unified kernel images, and their contents.

mod contents;
mod kernel_file;
mod kmod_name;
mod signature;

use std::path::{Path, PathBuf};

use dkms_engine::names::KernelRelease;
use dkms_engine::os::paths;
use serde::{Deserialize, Serialize};

pub(crate) use contents::{Contents, Listing};
pub(crate) use kernel_file::other_release;
pub use kernel_file::release as release_of_kernel_file;
pub(crate) use kmod_name::KmodName;
pub(crate) use signature::is_signed;

/// An initramfs image or a unified kernel image. The file may be missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Image {
    /// The absolute path on the machine that boots the image, such as `/boot/initramfs-linux.img`.
    pub(crate) path: PathBuf,
    pub(crate) kind: ImageKind,
    /// The installed kernel that the image is for.
    pub(crate) kernel: KernelRelease,
    /// The name of the mkinitcpio preset that generates the image; `None` without a preset.
    pub(crate) preset: Option<String>,
    /// The kernel file that boots with the image, such as `/boot/vmlinuz-linux`, as a path on the
    /// machine that boots it. `None` if the image contains the kernel, or if boot entries have a
    /// separate directory for each release. The file may be missing.
    pub(crate) kernel_file: Option<PathBuf>,
}

/// The format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ImageKind {
    Initramfs,
    /// A unified kernel image: one EFI program with kernel, initramfs and command line.
    Uki,
}

impl Image {
    /// Returns the initramfs image at `path` in /boot. It boots with the kernel file
    /// `/boot/vmlinuz-<name>`, where `name` is the kernel's package or release.
    pub(crate) fn in_boot(path: String, name: &str, kernel: &KernelRelease) -> Self {
        let kernel_file = Some(format!("/boot/vmlinuz-{name}").into());
        Self { kernel_file, ..Self::complete(path.into(), ImageKind::Initramfs, kernel) }
    }

    /// Returns an image whose kernel is in the same file or boot entry, so that image and kernel
    /// are replaced together.
    pub(crate) fn complete(path: PathBuf, kind: ImageKind, kernel: &KernelRelease) -> Self {
        Self { path, kind, kernel: kernel.clone(), preset: None, kernel_file: None }
    }

    /// Returns the path of the image file below `root`.
    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        paths::below(root, &self.path)
    }

    /// Returns the size of the image in bytes; 0 if it does not exist.
    pub(crate) fn size(&self, root: &Path) -> u64 {
        self.below(root).metadata().map_or(0, |meta| meta.len())
    }

    /// Returns the release of the image's kernel file if it differs from the release that the image
    /// is for. Returns `None` if the kernel file does not exist or does not name a release.
    pub(crate) fn other_kernel(&self, root: &Path) -> Option<String> {
        other_release(root, self.kernel_file.as_ref()?, &self.kernel)
    }
}

/// Returns a kernel file whose header names `release`.
#[cfg(test)]
pub(crate) fn test_kernel_file(release: &str) -> String {
    let header = format!("{}HdrS{}\0\u{1}", "\0".repeat(0x202), "\0".repeat(8));
    format!("{header:\0<768}{release} (me@here) #1\0")
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use super::*;

    #[test]
    fn another_kernel_is_one_with_another_release() {
        let root = TestRoot::new();
        let mut image = Image {
            path: "/boot/initramfs-linux.img".into(),
            kind: ImageKind::Initramfs,
            kernel: "7.2.13-arch1-1".parse().unwrap(),
            preset: None,
            kernel_file: Some("/boot/vmlinuz-linux".into()),
        };
        let other = |image: &Image| image.other_kernel(root.path());
        assert_eq!(other(&image), None, "the kernel file does not exist");
        root.write("boot/vmlinuz-linux", "no header");
        assert_eq!(other(&image), None);
        root.write("boot/vmlinuz-linux", test_kernel_file("7.2.13-arch1-1"));
        assert_eq!(other(&image), None);
        root.write("boot/vmlinuz-linux", test_kernel_file("7.2.13-arch1-10"));
        assert_eq!(other(&image).unwrap(), "7.2.13-arch1-10");
        root.write("usr/lib/modules/7.2.13-arch1-1/vmlinuz", test_kernel_file("7.2.13-arch1-10"));
        assert_eq!(other(&image), None, "it is a copy of the kernel's own file");
        root.remove("usr/lib/modules/7.2.13-arch1-1/vmlinuz");
        image.kernel_file = None;
        assert_eq!(other(&image), None);
    }
}
