//! A file that a kernel is booted with.

pub mod contents;
pub(crate) mod kernel_file;
pub mod kmod_name;
pub(crate) mod signature;

use std::path::{Path, PathBuf};

use dkms_engine::names::KernelRelease;
use serde::{Deserialize, Serialize};

/// An initramfs image or a unified kernel image, there or expected there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Image {
    /// Where it is, as the machine that boots from it sees it: `/boot/initramfs-linux.img`.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The installed kernel that it is regenerated for.
    pub kernel: KernelRelease,
    /// The preset that makes it, as `mkinitcpio -p` takes it; only with mkinitcpio.
    pub preset: Option<String>,
}

/// What kind of file an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An initramfs, loaded beside the kernel.
    Initramfs,
    /// A unified kernel image: one EFI program of kernel, initramfs and command line.
    Uki,
}

impl Image {
    /// Where it is below `root`.
    #[must_use]
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(self.path.strip_prefix("/").unwrap_or(&self.path))
    }
}
