//! Checks that everything on a machine is as it should be: modules, kernels, images and pending
//! work.
//!
//! | Module | Purpose |
//! |---|---|
//! | `boot_entry` | the kernel that the machine boots by default |
//! | `installed_kernels` | the installed kernels, and the choice of those to check |
//! | [`notice`] | reports important faults until they are corrected |
//! | `pending` | the faults derived from pending work |

mod boot_entry;
mod installed_kernels;
pub mod notice;
mod pending;

use std::collections::BTreeSet;

use dkms_engine::failure::Failure;
use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::names::{KernelRelease, ModuleName, ModuleVersion};
pub use dkms_engine::verify::Fault;
use dkms_engine::verify::Objects;
use dkms_initramfs::{Generator, image_faults, stale_images};

use crate::installed_kernels::InstalledKernels;

/// The part of a machine to check. By default, everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// The kernels to check. If empty, the kernels that can be booted.
    pub kernels: BTreeSet<KernelRelease>,
    /// Whether to check only the kernel that the machine boots by default.
    pub boot: bool,
    /// The only module to check, as its name and version; `None` in place of the version selects
    /// all versions.
    pub module: Option<(ModuleName, Option<ModuleVersion>)>,
}

/// Returns the faults of a machine, sorted by kernel and module. Changes nothing, takes no lock,
/// and needs only read access to the files.
///
/// # Errors
/// [`Failure`] if the kernels cannot be listed, or if a kernel in `extent` is not installed.
pub fn faults(machine: &Machine, extent: &Extent) -> Result<Vec<Fault>, Failure> {
    let kernels = InstalledKernels::read(machine)?;
    let generator = Generator::detect(machine);
    let checked = kernels.selected(machine, extent, generator.as_ref())?;
    let all = extent.kernels.is_empty() && !extent.boot && extent.module.is_none();
    let mut found = faults_of(machine, &checked, all, Objects::All, generator.as_ref());
    if let Some((name, version)) = &extent.module {
        found.retain(|fault| {
            fault.module.as_ref().is_some_and(|id| {
                id.name == *name && version.as_ref().is_none_or(|version| id.version == *version)
            })
        });
    }
    Ok(found.into_iter().collect())
}

/// Returns the faults of the running kernel and of the kernel that boots by default. If neither
/// kernel is known, returns the faults of all kernels that can be booted.
fn faults_that_matter(machine: &Machine) -> Vec<Fault> {
    // An unreadable install tree has been reported by the run itself.
    let Ok(kernels) = InstalledKernels::read(machine) else { return Vec::new() };
    let generator = Generator::detect(machine);
    let known: BTreeSet<KernelRelease> = kernels
        .running()
        .into_iter()
        .chain(kernels.default(machine))
        .map(|kernel| kernel.release.clone())
        .collect();
    let extent = Extent { kernels: known, ..Extent::default() };
    let checked = kernels.selected(machine, &extent, generator.as_ref()).unwrap_or_default();
    let all = extent.kernels.is_empty();
    let found = faults_of(machine, &checked, all, Objects::Changed, generator.as_ref());
    found.into_iter().collect()
}

/// Returns the faults of the kernels in `checked`. With `all`, also returns the faults of removed
/// kernels and the faults that concern no particular kernel.
fn faults_of(
    machine: &Machine,
    checked: &[&Kernel],
    all: bool,
    objects: Objects,
    generator: Option<&Generator>,
) -> BTreeSet<Fault> {
    let releases: BTreeSet<KernelRelease> =
        checked.iter().map(|kernel| kernel.release.clone()).collect();
    let mut found: BTreeSet<Fault> =
        dkms_engine::verify::faults(machine, &releases, all, objects).into_iter().collect();
    let stale = generator.map(|it| stale_images(machine, it)).unwrap_or_default();
    if let Some(generator) = generator {
        let is_pending = |fault: &Fault| {
            stale
                .iter()
                .filter_map(|report| report.image())
                .any(|image| fault.problem.contains(&format!(": {}: ", image.display())))
        };
        let of_kernel = |kernel: &&Kernel| image_faults(machine, generator, kernel);
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
    found
}
