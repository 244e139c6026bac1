//! The installed kernels, and the choice of those to check.

use std::path::Path;

use dkms_engine::failure::Failure;
use dkms_engine::machine::{Kernel, Kernels, Machine, running_release};
use dkms_engine::names::KernelRelease;
use dkms_engine::version;
use dkms_initramfs::{Generator, has_images};

use crate::Extent;
use crate::boot_entry;

/// The installed kernels of a machine.
pub(crate) struct InstalledKernels {
    all: Vec<Kernel>,
    /// The running kernel; `None` if it is unknown. It need not be installed.
    running: Option<KernelRelease>,
}

impl InstalledKernels {
    pub(crate) fn read(machine: &Machine) -> Result<Self, Failure> {
        let mut all = Kernels::read(&machine.trees)?.all;
        all.retain(|kernel| kernel.alive);
        let running = running_release().filter(|_| machine.trees.root == Path::new("/"));
        Ok(Self { all, running })
    }

    /// Returns the kernels to check.
    ///
    /// If `extent` names no kernel, these are the running kernel and the kernels with an image. On
    /// a machine without images, such as a container, these are all kernels.
    pub(crate) fn selected(
        &self,
        machine: &Machine,
        extent: &Extent,
        generator: Option<&Generator>,
    ) -> Result<Vec<&Kernel>, Failure> {
        let named = &extent.kernels;
        if let Some(missing) = named.iter().find(|it| self.all.iter().all(|k| k.release != **it)) {
            let kernels: Vec<&str> = self.all.iter().map(|it| it.release.as_str()).collect();
            let installed = kernels.join(", ");
            let message =
                format!("{missing}: no such kernel in /usr/lib/modules (installed: {installed})");
            return Err(Failure::new(2, message));
        }
        if !named.is_empty() {
            return Ok(self.all.iter().filter(|kernel| named.contains(&kernel.release)).collect());
        }
        if extent.boot
            && let Some(kernel) = self.default(machine)
        {
            return Ok(vec![kernel]);
        }
        let boots = |kernel: &&Kernel| {
            self.is_running(kernel)
                || generator.is_some_and(|generator| has_images(machine, generator, kernel))
        };
        let current = || self.all.iter().filter(|kernel| !self.is_copy(kernel));
        let bootable: Vec<&Kernel> = current().filter(boots).collect();
        Ok(if bootable.is_empty() { current().collect() } else { bootable })
    }

    /// Returns the kernel that the machine boots by default, or `None` if it is unknown.
    pub(crate) fn default(&self, machine: &Machine) -> Option<&Kernel> {
        boot_entry::default_kernel(machine, &self.all, self.running.as_ref())
    }

    /// Returns the running kernel, or `None` if it is unknown, not installed, or a copy that is
    /// kept until the next boot.
    pub(crate) fn running(&self) -> Option<&Kernel> {
        self.all.iter().find(|kernel| self.is_running(kernel) && !self.is_copy(kernel))
    }

    fn is_running(&self, kernel: &Kernel) -> bool {
        self.running.as_ref() == Some(&kernel.release)
    }

    /// Returns true if the kernel is a copy that is kept until the next boot, because its package
    /// has been upgraded to another kernel.
    fn is_copy(&self, kernel: &Kernel) -> bool {
        self.all.iter().any(|other| {
            other.pkgbase.is_some()
                && other.pkgbase == kernel.pkgbase
                && version::compare(kernel.release.as_str(), other.release.as_str()).is_lt()
        })
    }
}
