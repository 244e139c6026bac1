//! The output of `dkms preflight` that the hook does not have: JSON, errors and an exit code.

use std::io::{self, Write};
use std::path::Path;

use dkms_engine::names::{KernelRelease, ModuleId, ModuleName, ModuleVersion};
use serde::Serialize;

use crate::outcome::Complaint;
use crate::verdict::{Regression, RegressionCause, Verdict};

/// The exit code if a module works now and would not work after the transaction.
pub(crate) const REGRESSION: u8 = 11;

/// Prints a message as `dkms` does.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "dkms: {message}");
}

/// The verdict of a preflight.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    /// Whether the preflight would abort a transaction with these packages.
    would_abort: bool,
    builds: Vec<Builds<'a>>,
    regressions: Vec<Lost<'a>>,
    failures: Vec<Failure<'a>>,
    not_tried: Vec<Unknown<'a>>,
    warnings: &'a [String],
}

/// The modules that build for a kernel.
#[derive(Debug, Serialize)]
struct Builds<'a> {
    kernel: &'a KernelRelease,
    modules: Vec<Module<'a>>,
}

#[derive(Debug, Serialize)]
struct Module<'a> {
    module: &'a ModuleName,
    version: &'a ModuleVersion,
}

/// A module that works with the kernel's package now and would not work after the transaction.
#[derive(Debug, Serialize)]
struct Lost<'a> {
    /// The version that does not build.
    #[serde(flatten)]
    module: Module<'a>,
    kernel: &'a KernelRelease,
    works_for: &'a KernelRelease,
    package: &'a str,
    /// Why the machine needs the module; `null` if no reason is known.
    critical: Option<&'a str>,
    #[serde(flatten)]
    reason: Reason<'a>,
}

/// Another module that does not build.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    #[serde(flatten)]
    module: Module<'a>,
    /// The kernel; `null` if the module builds for no kernel.
    kernel: Option<&'a KernelRelease>,
    #[serde(flatten)]
    reason: Reason<'a>,
}

#[derive(Debug, Serialize)]
struct Reason<'a> {
    message: &'a str,
    /// The line of the log that explains the failure best.
    cause: Option<&'a str>,
    log: Option<&'a Path>,
}

#[derive(Debug, Serialize)]
struct Unknown<'a> {
    module: Option<&'a ModuleName>,
    version: Option<&'a ModuleVersion>,
    reason: &'a str,
}

impl<'a> Report<'a> {
    pub(crate) fn of(verdict: &'a Verdict, would_abort: bool) -> Self {
        let builds = verdict.builds.iter().map(|(kernel, modules)| Builds {
            kernel,
            modules: modules.iter().map(Module::of).collect(),
        });
        let failures = verdict.failures.iter().map(|it| Failure {
            module: Module::of(&it.module),
            kernel: it.kernel.as_ref(),
            reason: Reason::of(&it.complaint),
        });
        let not_tried = verdict.unknown.iter().map(|(module, reason)| Unknown {
            module: module.as_ref().map(|id| &id.name),
            version: module.as_ref().map(|id| &id.version),
            reason,
        });
        Self {
            would_abort,
            builds: builds.collect(),
            regressions: verdict.regressions.iter().map(Lost::of).collect(),
            failures: failures.collect(),
            not_tried: not_tried.collect(),
            warnings: &verdict.warnings,
        }
    }

    /// Returns the report as JSON that ends with a newline.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }
}

impl<'a> Module<'a> {
    fn of(id: &'a ModuleId) -> Self {
        Self { module: &id.name, version: &id.version }
    }
}

impl<'a> Reason<'a> {
    fn of(complaint: &'a Complaint) -> Self {
        Self {
            message: &complaint.message,
            cause: complaint.cause.as_deref(),
            log: complaint.log.as_deref(),
        }
    }
}

impl<'a> Lost<'a> {
    fn of(regression: &'a Regression) -> Self {
        let (module, reason) = match &regression.why {
            RegressionCause::NoHeaders => {
                let message = "the kernel's headers are missing";
                (&regression.installed.id, Reason { message, cause: None, log: None })
            }
            RegressionCause::DoesNotBuild(id, complaint) => (id, Reason::of(complaint)),
        };
        Self {
            module: Module::of(module),
            kernel: &regression.kernel,
            works_for: &regression.works_for,
            package: &regression.package,
            critical: regression.critical.as_deref(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installed::InstalledModule;
    use crate::verdict::OtherFailure;

    #[test]
    fn prints_a_verdict() {
        let id = |text: &str| text.parse::<ModuleId>().expect("a module");
        let kernel = |text: &str| text.parse::<KernelRelease>().expect("a release");
        let complaint = Complaint {
            message: "make failed".into(),
            cause: Some("zfs.c:1: error: no".into()),
            means: None,
            log: Some("/var/lib/dkms/.log/zfs.log".into()),
        };
        let lost = |name: &str, why: RegressionCause, critical: Option<&str>| Regression {
            installed: InstalledModule { id: id(name), objects: [].into() },
            works_for: kernel("7.1"),
            kernel: kernel("7.2"),
            package: "linux".into(),
            why,
            critical: critical.map(str::to_owned),
        };
        let verdict = Verdict {
            builds: [(kernel("7.2"), [id("xone/1"), id("evdi/2")].into())].into(),
            regressions: vec![
                lost(
                    "zfs/1",
                    RegressionCause::DoesNotBuild(id("zfs/2"), complaint.clone()),
                    Some("it is in the initramfs"),
                ),
                lost("dahdi/3", RegressionCause::NoHeaders, None),
            ],
            failures: vec![OtherFailure {
                module: id("old/1"),
                kernel: None,
                complaint,
                stays: None,
            }],
            unknown: vec![(None, "no memory".into()), (Some(id("a/1")), "a script".into())],
            warnings: vec!["not enough space in /boot".into()],
            ..Verdict::default()
        };
        insta::assert_snapshot!(Report::of(&verdict, true).to_json());
        let nothing = Verdict::default();
        let empty = serde_json::json!({
            "would_abort": false, "builds": [], "regressions": [], "failures": [], "not_tried": [],
            "warnings": []
        });
        assert_eq!(serde_json::to_value(Report::of(&nothing, false)).expect("JSON"), empty);
    }
}
