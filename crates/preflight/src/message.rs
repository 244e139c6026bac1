//! The lines that a preflight prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use dkms_engine::names::{KernelRelease, ModuleId};

use crate::arriving::Arriving;
use crate::outcome::Complaint;
use crate::verdict::{OtherFailure, Regression, RegressionCause, Verdict};

/// The consequence of a verdict for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The transaction continues.
    Continues,
    /// The transaction is aborted.
    Aborts,
    /// A transaction with these packages would continue.
    WouldContinue,
    /// A transaction with these packages would be aborted.
    WouldAbort,
}

impl Consequence {
    pub(crate) fn is_abort(self) -> bool {
        matches!(self, Self::Aborts | Self::WouldAbort)
    }
}

/// Returns the lines for a verdict. If the transaction is aborted, the reasons and the commands
/// come last, because the user then sees them directly above pacman's error.
pub(crate) fn lines(
    verdict: &Verdict,
    arriving: &Arriving,
    elapsed: Duration,
    consequence: Consequence,
    advice: &[String],
) -> String {
    let mut text = String::new();
    if let Some(line) = success(verdict, elapsed) {
        let _ = writeln!(text, "{line}");
    }
    for warning in &verdict.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if let Some(why) = &verdict.not_stored {
        let _ = writeln!(text, "note: modules will be built again after the transaction: {why}");
    }
    for (module, why) in &verdict.unknown {
        let subject = module.as_ref().map_or_else(String::new, |id| format!("{id}: "));
        let _ = writeln!(text, "note: {subject}test build inconclusive: {why}");
    }
    for OtherFailure { module, kernel, complaint, stays } in &verdict.failures {
        let _ = writeln!(text, "warning: {}", failure(module, kernel.as_ref(), complaint));
        if let Some(old) = stays {
            let _ = writeln!(text, "  note: {old} stays installed");
        }
    }
    let (critical, others): (Vec<_>, Vec<_>) =
        verdict.regressions.iter().partition(|it| consequence.is_abort() && it.critical.is_some());
    for warning in all_lost(others) {
        let _ = writeln!(text, "warning: {warning}");
    }
    for regression in &critical {
        let _ = writeln!(text, "error: {}", lost(regression));
    }
    text += match consequence {
        Consequence::Continues => return text,
        Consequence::WouldContinue if verdict.regressions.is_empty() => return text,
        Consequence::WouldContinue => {
            return text + "A transaction with these packages would not be aborted.\n";
        }
        Consequence::Aborts => "The transaction is aborted; nothing has been changed.\n",
        Consequence::WouldAbort => "A transaction with these packages would be aborted.\n",
    };
    text + &commands(&critical, arriving, advice)
}

/// Returns the line about the modules that build; `None` if there are none.
fn success(verdict: &Verdict, elapsed: Duration) -> Option<String> {
    let modules: BTreeSet<&ModuleId> = verdict.builds.values().flatten().collect();
    let kernels: Vec<&str> = verdict.builds.keys().map(KernelRelease::as_str).collect();
    let modules = match modules.len() {
        0 => return None,
        1 => "1 module built".to_owned(),
        count => format!("{count} modules built"),
    };
    Some(format!("{modules} for {} ({} s)", kernels.join(", "), elapsed.as_secs()))
}

fn failure(module: &ModuleId, kernel: Option<&KernelRelease>, complaint: &Complaint) -> String {
    let mut text = module.to_string();
    if let Some(kernel) = kernel {
        let _ = write!(text, " for {kernel}");
    }
    let _ = write!(text, ": {}", complaint.message);
    if let Some(cause) = &complaint.cause {
        let _ = write!(text, "\n  cause: {cause}");
    }
    if let Some(means) = &complaint.means {
        let _ = write!(text, "\n  means: {means}");
    }
    if let Some(log) = &complaint.log {
        let _ = write!(text, "\n  log: {}", log.display());
    }
    text
}

/// Returns a message for each regression. All modules that are lost because the same kernel has no
/// headers share one message.
fn all_lost(regressions: Vec<&Regression>) -> Vec<String> {
    let (without_headers, others): (Vec<_>, Vec<_>) =
        regressions.into_iter().partition(|it| matches!(it.why, RegressionCause::NoHeaders));
    let mut by_kernel: BTreeMap<_, Vec<&Regression>> = BTreeMap::new();
    for regression in without_headers {
        let Regression { kernel, works_for, package, .. } = regression;
        by_kernel.entry((kernel, works_for, package)).or_default().push(regression);
    }
    let together = by_kernel.into_iter().map(|((kernel, works_for, package), group)| {
        if let [only] = group[..] {
            return lost(only);
        }
        let modules: Vec<String> = group.iter().map(|it| it.installed.id.to_string()).collect();
        let why = no_headers(&modules.join(", "), kernel, package);
        format!("{why}\n  note: they work with {works_for} ({package})")
    });
    together.chain(others.into_iter().map(lost)).collect()
}

fn no_headers(modules: &str, kernel: &KernelRelease, package: &str) -> String {
    format!(
        "{modules} for {kernel}: cannot be built: the headers of {package} for this \
         kernel are missing"
    )
}

fn lost(regression: &Regression) -> String {
    let Regression { installed, works_for, kernel, package, why, critical } = regression;
    let mut text = match why {
        RegressionCause::NoHeaders => no_headers(&installed.id.to_string(), kernel, package),
        RegressionCause::DoesNotBuild(module, complaint) => {
            failure(module, Some(kernel), complaint)
        }
    };
    let _ = write!(text, "\n  note: {} works with {works_for} ({package})", installed.id);
    if let Some(critical) = critical {
        let _ =
            write!(text, "\n  note: this machine needs {}, which {critical}", installed.id.name);
    }
    text
}

/// Returns the lines with the commands to run after the transaction was aborted.
fn commands(critical: &[&Regression], arriving: &Arriving, advice: &[String]) -> String {
    let kernels: BTreeSet<&KernelRelease> = critical.iter().map(|it| &it.kernel).collect();
    let modules: BTreeSet<&str> = critical.iter().map(|it| it.installed.id.name.as_str()).collect();
    let modules: Vec<&str> = modules.into_iter().collect();
    let mut text = String::new();
    for line in advice {
        let _ = writeln!(text, "  {line}");
    }
    let ignored = arriving.packages_of(&kernels);
    let has_others = arriving.packages.iter().any(|package| !ignored.contains(&package.name));
    let ignored: Vec<String> = ignored.into_iter().collect();
    if arriving.upgrade {
        let ignored = ignored.join(",");
        let _ = writeln!(text, "  to upgrade everything else, run: pacman -Syu --ignore {ignored}");
    } else if has_others {
        let _ = writeln!(text, "  to install everything else, leave out {}", ignored.join(", "));
    }
    if critical.iter().any(|it| matches!(it.why, RegressionCause::NoHeaders)) {
        let packages: BTreeSet<&str> = critical.iter().map(|it| it.package.as_str()).collect();
        let headers: String =
            packages.iter().flat_map(|package| [" ", package, "-headers"]).collect();
        let _ = writeln!(text, "  to get the headers, run: pacman -Syu{headers}");
    }
    let _ = writeln!(
        text,
        "  to continue without {}, run: dkms preflight --allow-once\n    \
         then repeat the pacman command",
        modules.join(", ")
    );
    text
}

#[cfg(test)]
mod tests;
