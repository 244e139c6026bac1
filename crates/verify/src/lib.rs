//! Checks that everything on a machine is as it should be: modules, kernels, images and pending work.
//!
//! | Module | Purpose |
//! |---|---|
//! | `boot_entry` | the kernel that the machine boots by default |
//! | [`notice`] | reports important faults until they are corrected |
//! | `pending` | the faults derived from pending work |

mod boot_entry;
pub mod notice;
mod pending;

use std::collections::BTreeSet;
use std::path::Path;

use dkms_engine::failure::Failure;
use dkms_engine::machine::{Kernel, Kernels, Machine, running_release};
use dkms_engine::names::{KernelRelease, ModuleName, ModuleVersion};
pub use dkms_engine::verify::Fault;
use dkms_engine::version;
use dkms_initramfs::{Generator, has_images, image_faults, stale_images};

/// The part of a machine to check. By default, everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// The kernels to check. If empty, the kernels that can be booted.
    pub kernels: BTreeSet<KernelRelease>,
    /// Whether to check only the kernel that the machine boots by default.
    pub boot: bool,
    /// The name of the only module to check, and its version; `None` for all versions.
    pub module: Option<(ModuleName, Option<ModuleVersion>)>,
}

/// Returns the faults of a machine, sorted by kernel and module. Changes nothing, takes no lock,
/// and needs only read access to the files.
///
/// # Errors
/// [`Failure`] if the kernels cannot be listed, or if a kernel in `extent` is not installed.
pub fn faults(machine: &Machine, extent: &Extent) -> Result<Vec<Fault>, Failure> {
    let alive: Vec<Kernel> =
        Kernels::read(&machine.trees)?.all.into_iter().filter(|kernel| kernel.alive).collect();
    let generator = Generator::detect(machine);
    let checked = kernels(machine, extent, &alive, generator.as_ref())?;
    let all = extent.kernels.is_empty() && !extent.boot && extent.module.is_none();
    let releases: BTreeSet<KernelRelease> =
        checked.iter().map(|kernel| kernel.release.clone()).collect();
    let mut found: BTreeSet<Fault> =
        dkms_engine::verify::faults(machine, &releases, all).into_iter().collect();
    let stale = generator.as_ref().map(|it| stale_images(machine, it)).unwrap_or_default();
    if let Some(generator) = &generator {
        let is_pending = |fault: &Fault| {
            stale
                .iter()
                .filter_map(|report| report.image())
                .any(|image| fault.problem.contains(&format!(": {}: ", image.display())))
        };
        let of_kernel = |kernel| image_faults(machine, generator, kernel);
        found.extend(checked.iter().flat_map(of_kernel).filter(|fault| !is_pending(fault)));
    }
    let pending = pending::faults(machine, &stale, |kernel| {
        all || kernel.is_some_and(|kernel| releases.contains(kernel))
    });
    // A fault that says why a module is out of date is more useful than one that says it is
    // pending.
    let is_known = |fault: &Fault| {
        let same = |other: &Fault| other.module == fault.module && other.kernel == fault.kernel;
        fault.module.is_some() && found.iter().any(same)
    };
    let pending: Vec<Fault> = pending.into_iter().filter(|fault| !is_known(fault)).collect();
    found.extend(pending);
    if let Some((name, version)) = &extent.module {
        found.retain(|fault| {
            fault.module.as_ref().is_some_and(|id| {
                id.name == *name && version.as_ref().is_none_or(|version| id.version == *version)
            })
        });
    }
    Ok(found.into_iter().collect())
}

/// Returns the faults that concern the kernel that boots by default or the running one. If neither is
/// known, returns those of all kernels that can be booted.
fn faults_that_matter(machine: &Machine) -> Vec<Fault> {
    let kernels = Kernels::read(&machine.trees).map(|kernels| kernels.all).unwrap_or_default();
    let alive: Vec<Kernel> = kernels.into_iter().filter(|kernel| kernel.alive).collect();
    let running = running_release().filter(|_| machine.trees.root == Path::new("/"));
    let default = boot_entry::default_kernel(machine, &alive, running.as_ref());
    let is_running =
        |kernel: &&Kernel| running.as_ref() == Some(&kernel.release) && !is_copy(kernel, &alive);
    let kernels = alive.iter().filter(is_running).chain(default);
    let extent = Extent {
        kernels: kernels.map(|kernel| kernel.release.clone()).collect(),
        ..Extent::default()
    };
    // An unreadable install tree has been reported by the run itself.
    faults(machine, &extent).unwrap_or_default()
}

/// Returns the kernels to check.
///
/// Without a kernel in `extent`, these are the ones with an image and the running one. On a machine
/// without images, such as a container, these are all kernels.
fn kernels(
    machine: &Machine,
    extent: &Extent,
    alive: &[Kernel],
    generator: Option<&Generator>,
) -> Result<Vec<Kernel>, Failure> {
    let named = &extent.kernels;
    if let Some(missing) = named.iter().find(|it| alive.iter().all(|k| k.release != **it)) {
        let kernels: Vec<&str> = alive.iter().map(|kernel| kernel.release.as_str()).collect();
        let installed = kernels.join(", ");
        let message =
            format!("{missing}: no such kernel in /usr/lib/modules (installed: {installed})");
        return Err(Failure::new(2, message));
    }
    if !named.is_empty() {
        let is_named = |kernel: &&Kernel| named.contains(&kernel.release);
        return Ok(alive.iter().filter(is_named).cloned().collect());
    }
    let running = running_release().filter(|_| machine.trees.root == Path::new("/"));
    if extent.boot
        && let Some(kernel) = boot_entry::default_kernel(machine, alive, running.as_ref())
    {
        return Ok(vec![kernel.clone()]);
    }
    let boots = |kernel: &&Kernel| {
        running.as_ref() == Some(&kernel.release)
            || generator.is_some_and(|generator| has_images(machine, generator, kernel))
    };
    let current: Vec<Kernel> = alive.iter().filter(|it| !is_copy(it, alive)).cloned().collect();
    let bootable: Vec<Kernel> = current.iter().filter(boots).cloned().collect();
    Ok(if bootable.is_empty() { current } else { bootable })
}

/// Returns true if the kernel is a copy that is kept until the next boot: its package has been upgraded
/// to another kernel.
fn is_copy(kernel: &Kernel, alive: &[Kernel]) -> bool {
    alive.iter().any(|other| {
        other.pkgbase.is_some()
            && other.pkgbase == kernel.pkgbase
            && version::compare(kernel.release.as_str(), other.release.as_str()).is_lt()
    })
}
