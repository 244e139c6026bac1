//! The files that a kernel is booted with, and what can be read from them.

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
    /// The path on the machine that boots from it: `/boot/initramfs-linux.img`.
    pub(crate) path: PathBuf,
    pub(crate) kind: ImageKind,
    /// The installed kernel that the image is made for.
    pub(crate) kernel: KernelRelease,
    /// The preset that makes it (`mkinitcpio -p`); `None` with other generators.
    pub(crate) preset: Option<String>,
}

/// The kind of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ImageKind {
    /// An initramfs, loaded beside the kernel.
    Initramfs,
    /// A unified kernel image: one EFI program of kernel, initramfs and command line.
    Uki,
}

impl Image {
    /// The path below `root`.
    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        paths::below(root, &self.path)
    }
}
