//! Decides which modules would be lost in a transaction.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::machine::PreflightMode;
use dkms_engine::names::{KernelRelease, ModuleId, ModuleName};
use serde::{Deserialize, Serialize};

use crate::installed::{InstalledKernel, InstalledModule};
use crate::outcome::{Complaint, TrialResults, Tried, TriedResult};

/// The consequences of a trial for the machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The modules that build, by kernel.
    pub(crate) builds: BTreeMap<KernelRelease, BTreeSet<ModuleId>>,
    /// The modules that work with a kernel's package now and would not work after the transaction.
    pub(crate) regressions: Vec<Regression>,
    /// The other modules that do not build.
    pub(crate) failures: Vec<OtherFailure>,
    /// The reasons why results are not known, each with the module that it concerns; `None` if it
    /// concerns all modules.
    pub(crate) unknown: Vec<(Option<ModuleId>, String)>,
    /// The last error that prevented a build from being cached. Builds that are not cached are
    /// repeated after the transaction.
    pub(crate) not_stored: Option<String>,
    /// Other messages for the user.
    pub(crate) warnings: Vec<String>,
}

/// A module that is installed for a kernel but cannot be built for the kernel that replaces that
/// kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Regression {
    /// The module that is installed now.
    pub(crate) installed: InstalledModule,
    /// The kernel for which it is installed.
    pub(crate) works_for: KernelRelease,
    /// The arriving kernel.
    pub(crate) kernel: KernelRelease,
    /// The package of both kernels.
    pub(crate) package: String,
    pub(crate) why: RegressionCause,
    /// Why the machine needs the module; `None` if no reason is known.
    pub(crate) critical: Option<String>,
}

/// A module that does not build, but is not lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OtherFailure {
    pub(crate) module: ModuleId,
    /// The kernel; `None` if the module builds for no kernel.
    pub(crate) kernel: Option<KernelRelease>,
    pub(crate) complaint: Complaint,
    /// The version that stays installed for the kernel, if any.
    pub(crate) stays: Option<ModuleId>,
}

/// The reason why a module cannot be built for an arriving kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum RegressionCause {
    /// The kernel has no headers.
    NoHeaders,
    /// This version of the module does not build.
    DoesNotBuild(ModuleId, Complaint),
}

impl Verdict {
    /// Compares the results of a trial with the modules that are `installed` now.
    ///
    /// `in_kernels` are the names of the kernel modules that the arriving kernels contain
    /// themselves: a module is not lost if they contain all of its objects. `critical` returns why
    /// the machine needs a module that is installed for a kernel.
    pub(crate) fn of(
        results: &TrialResults,
        installed: &[InstalledKernel],
        in_kernels: &BTreeSet<String>,
        critical: impl Fn(&InstalledModule, &InstalledKernel) -> Option<String>,
    ) -> Self {
        let mut verdict = Self::default();
        let comparison = Comparison { results, installed, in_kernels, critical };
        for tried @ Tried { module, kernel, result } in &results.tried {
            match (module, result) {
                (Some(id), TriedResult::Builds) => {
                    if let Some(kernel) = kernel {
                        verdict.builds.entry(kernel.clone()).or_default().insert(id.clone());
                    }
                }
                (_, TriedResult::Unknown(why)) => {
                    verdict.unknown.push((module.clone(), why.clone()));
                }
                (_, TriedResult::NoHeaders) => {
                    let lost = comparison.regressions(tried, &RegressionCause::NoHeaders);
                    verdict.regressions.extend(lost);
                }
                (Some(id), TriedResult::Fails(complaint)) => {
                    let why = RegressionCause::DoesNotBuild(id.clone(), complaint.clone());
                    let lost = comparison.regressions(tried, &why);
                    if lost.is_empty() {
                        verdict.failures.push(OtherFailure {
                            module: id.clone(),
                            kernel: kernel.clone(),
                            complaint: complaint.clone(),
                            stays: comparison.installed_version(id, kernel.as_ref()),
                        });
                    }
                    verdict.regressions.extend(lost);
                }
                (_, TriedResult::LeftAlone(why)) => {
                    if !comparison.lost(tried).is_empty() {
                        verdict.warnings.push(why.clone());
                    }
                }
                (None, TriedResult::Builds | TriedResult::Fails(_)) => {}
            }
        }
        verdict
    }

    /// Returns true if the transaction would lose a module that the machine needs. The transaction
    /// is then aborted, unless the user has permitted it.
    pub(crate) fn aborts(&self, mode: PreflightMode) -> bool {
        mode == PreflightMode::Critical
            && self.regressions.iter().any(|regression| regression.critical.is_some())
    }
}

/// A module that is lost.
struct Lost<'a> {
    /// The kernel for which it is installed.
    old: &'a InstalledKernel,
    module: &'a InstalledModule,
    /// The arriving kernel.
    kernel: &'a KernelRelease,
    /// The package of both kernels.
    package: &'a str,
}

/// The arguments of [`Verdict::of`].
struct Comparison<'a, F> {
    results: &'a TrialResults,
    installed: &'a [InstalledKernel],
    in_kernels: &'a BTreeSet<String>,
    critical: F,
}

impl<F> Comparison<'_, F>
where
    F: Fn(&InstalledModule, &InstalledKernel) -> Option<String>,
{
    /// Returns the modules that would be lost if the modules of `tried` could not be installed.
    fn lost<'t>(&'t self, tried: &'t Tried) -> Vec<Lost<'t>> {
        let Some(kernel) = &tried.kernel else { return Vec::new() };
        let Some(package) = self.results.packages.get(kernel) else { return Vec::new() };
        let concerns = |it: &InstalledModule| {
            tried.module.as_ref().is_none_or(|id| id.name == it.id.name)
                && !it.objects.is_subset(self.in_kernels)
        };
        let lost = lost(self.installed, package, kernel).into_iter();
        let lost = lost.filter(|(_, module)| concerns(module));
        lost.map(|(old, module)| Lost { old, module, kernel, package }).collect()
    }

    /// Returns the modules that are lost because of the failure in `tried`. `why` becomes the cause
    /// of each regression.
    fn regressions(&self, tried: &Tried, why: &RegressionCause) -> Vec<Regression> {
        let regression = |Lost { old, module, kernel, package }: Lost<'_>| Regression {
            installed: module.clone(),
            works_for: old.kernel.release.clone(),
            kernel: kernel.clone(),
            package: package.to_owned(),
            why: why.clone(),
            critical: (self.critical)(module, old),
        };
        self.lost(tried).into_iter().map(regression).collect()
    }

    /// Returns the installed version of a module for a kernel, if any.
    fn installed_version(&self, id: &ModuleId, kernel: Option<&KernelRelease>) -> Option<ModuleId> {
        let kernel = self.installed.iter().find(|it| Some(&it.kernel.release) == kernel)?;
        Some(kernel.modules.get(&id.name)?.id.clone())
    }
}

/// Returns the modules that are installed for a kernel of `package`, but not for `kernel` itself.
/// Modules that are installed for `kernel` itself stay installed if a new build fails.
fn lost<'a>(
    installed: &'a [InstalledKernel],
    package: &str,
    kernel: &KernelRelease,
) -> Vec<(&'a InstalledKernel, &'a InstalledModule)> {
    let has_now = |name: &ModuleName| {
        installed.iter().any(|it| it.kernel.release == *kernel && it.modules.contains_key(name))
    };
    let of_package = installed.iter().filter(|it| it.kernel.package.as_deref() == Some(package));
    let mut lost = BTreeMap::new();
    for old in of_package.filter(|it| it.kernel.release != *kernel) {
        let modules = old.modules.iter().filter(|(name, _)| !has_now(name));
        lost.extend(modules.map(|(name, module)| (name, (old, module))));
    }
    lost.into_values().collect()
}

#[cfg(test)]
mod tests;
