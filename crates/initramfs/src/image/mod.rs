//! Image files: initramfs images and unified kernel images, and their contents.

mod contents;
mod kernel_file;
mod kmod_name;
mod signature;

use std::path::{Path, PathBuf};

use dkms_engine::names::KernelRelease;
use dkms_engine::os::paths;

pub(crate) use contents::{Contents, Listing};
pub(crate) use kernel_file::release as release_of_kernel_file;
pub(crate) use kmod_name::KmodName;
pub(crate) use signature::is_signed;

/// An initramfs image or a unified kernel image. The file may be missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Image {
    /// The absolute path on the machine that boots the image, such as `/boot/initramfs-linux.img`.
    pub(crate) path: PathBuf,
    pub(crate) kind: ImageKind,
    /// The installed kernel that the image is for.
    pub(crate) kernel: KernelRelease,
    /// The name of the mkinitcpio preset that generates the image; `None` without a preset.
    pub(crate) preset: Option<String>,
}

/// The format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ImageKind {
    Initramfs,
    /// A unified kernel image: one EFI program with kernel, initramfs and command line.
    Uki,
}

impl Image {
    /// Returns the path of the image file below `root`.
    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        paths::below(root, &self.path)
    }
}
