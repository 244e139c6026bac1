//! Formats plans as the text that dry runs and hooks print.

use std::fmt;

use super::{Action, Note, Plan, Reinstallation, Step};
use crate::dkms_tree::{Attempts, PendingWork, Reason};
use crate::names::KernelRelease;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(module) => write!(f, "add {module}"),
            Self::ImportSource { module, from } => {
                write!(f, "copy the source of {module} from {}", from.display())
            }
            Self::Load { module, build, .. } => {
                write!(f, "import the build of {module} for {}", build.kernel)
            }
            Self::UseKept(module) => write!(f, "use the kept source of {module}"),
            Self::Adopt { module, kernel, .. } => {
                write!(f, "adopt {module} for {kernel} from dkms")
            }
            Self::Build { module, kernel } => write!(f, "build {module} for {kernel}"),
            Self::Install { module, kernel, replaces: None } => {
                write!(f, "install {module} for {kernel}")
            }
            Self::Install { module, kernel, replaces: Some(old) } => {
                write!(f, "install {module} for {kernel}, replacing {}", old.version)
            }
            Self::Uninstall { module, kernel, successors } => {
                write!(f, "uninstall {module} from {kernel}")?;
                match successors.as_slice() {
                    [] => Ok(()),
                    new => {
                        let new: Vec<String> = new.iter().map(ToString::to_string).collect();
                        write!(f, ", replaced by {}", new.join(", "))
                    }
                }
            }
            Self::Unbuild(module, kernel) => {
                write!(f, "delete the build of {module} for {kernel}")
            }
            Self::Deregister(module) => write!(f, "remove {module}"),
            Self::Depmod(kernel) => write!(f, "run depmod for {kernel}"),
            Self::RemoveLeftovers(kernel) => write!(f, "remove leftover files of {kernel}"),
            Self::Leave => f.write_str("remove the files of alpm-dkms from the dkms tree"),
            Self::Fail { module, kernel: Some(kernel), failure } => {
                write!(f, "fail {module} for {kernel}: {failure}")
            }
            Self::Fail { module, kernel: None, failure } => write!(f, "fail {module}: {failure}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Build { module, kernel } if self.is_cached() => {
                write!(f, "restore the build of {module} for {kernel} from the cache")?;
            }
            action => write!(f, "{action}")?,
        }
        let why = self.why.iter().filter(|why| **why != Reason::Cached);
        let why: Vec<String> = why.map(ToString::to_string).collect();
        match why.as_slice() {
            [] => Ok(()),
            why => write!(f, " ({})", why.join("; ")),
        }
    }
}

impl fmt::Display for Reinstallation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.obstacles.is_empty() {
            f.write_str("rm -rf")?;
            self.obstacles.iter().try_for_each(|path| write!(f, " {}", path.display()))?;
            f.write_str(" && ")?;
        }
        // No package owns the files that pacman had already unpacked.
        write!(f, "pacman -S --overwrite '*' {}", self.packages.join(" "))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeaders { kernel, package: None, .. } => {
                write!(f, "{kernel}: no kernel headers installed")
            }
            Self::NoHeaders { kernel, package: Some(base), other: None } => {
                write!(f, "{kernel}: no kernel headers installed\n  run: pacman -S {base}-headers")
            }
            Self::NoHeaders { kernel, package: Some(base), other: Some(other) } => write!(
                f,
                "{kernel}: no kernel headers installed: {base}-headers is for {other} (partial \
                 upgrade)\n  run: pacman -Syu"
            ),
            Self::Held { module, repair } => {
                write!(
                    f,
                    "{module}: held: pacman was interrupted while it replaced or removed its source\n  "
                )?;
                match repair {
                    Some(repair) => write!(f, "run: {repair}, or: dkms remove {module} --all"),
                    None => write!(f, "reinstall its package, or run: dkms remove {module} --all"),
                }
            }
            Self::IncompleteKernel { kernel, repair } => {
                write!(
                    f,
                    "{kernel}: skipped: pacman was interrupted while it installed or removed the \
                     kernel or its headers\n  "
                )?;
                match repair {
                    Some(repair) => write!(f, "run: {repair}"),
                    None => {
                        f.write_str("repeat the transaction, or reinstall the kernel's packages")
                    }
                }
            }
            Self::IncompleteSource(dir) => write!(
                f,
                "/usr/src/{dir}: skipped: pacman was interrupted while it installed this source\n  \
                 reinstall the package of this source, or, if another version of the module has \
                 replaced it, run: rm -r /usr/src/{dir}"
            ),
            Self::IncompletePackage(repair) => write!(
                f,
                "{}: pacman was interrupted while it installed or removed this package\n  run: {repair}",
                repair.packages.join(" ")
            ),
            Self::Running { process, left } => write!(
                f,
                "left to pacman, which is still running (process {process}): {}",
                left.join(", ")
            ),
            Self::NoKernel { kernel, running, installed } => {
                let what = if *running { "the running kernel is not" } else { "no such kernel" };
                write!(f, "{kernel}: {what} in /usr/lib/modules")?;
                let installed: Vec<&str> = installed.iter().map(KernelRelease::as_str).collect();
                match installed.as_slice() {
                    [] => Ok(()),
                    all => write!(f, " (installed: {})", all.join(", ")),
                }
            }
            Self::DanglingHeaders { kernel, target, package } => {
                write!(
                    f,
                    "{kernel}: kernel headers missing: /usr/lib/modules/{kernel}/build leads to {}, \
                     which does not exist",
                    target.display()
                )?;
                match package {
                    Some(base) => write!(f, "\n  run: pacman -S {base}-headers"),
                    None => Ok(()),
                }
            }
            Self::Excluded { module, kernel, why } => {
                write!(f, "{module}: skipped for {kernel}: {why}")
            }
            Self::KnownFailure { module, kernel, what, log, stays } => {
                write!(
                    f,
                    "{module}: skipped for {kernel}: an earlier build failed and nothing has changed \
                     since"
                )?;
                if let Some(old) = stays {
                    write!(f, " ({old} stays installed)")?;
                }
                write!(
                    f,
                    "\n  cause: {what}\n  log: {}\n  see: dkms explain {module} -k {kernel}",
                    log.display()
                )
            }
            Self::Parked(works) => {
                let named = |work: &PendingWork| {
                    let (module, kernel) = work.module_and_kernel()?;
                    Some(format!("{module} for {kernel}"))
                };
                let names: Vec<String> = works.iter().filter_map(named).collect();
                write!(
                    f,
                    "{}: skipped after {} attempts without success\n  run: dkms autoinstall",
                    names.join(", "),
                    Attempts::MOST
                )
            }
            Self::Declined { module, kernel, why } => write!(
                f,
                "{module} for {kernel}: not installed: {why}\n  \
                 run: dkms install {module} -k {kernel} --force\n  \
                 see: module.NAME.prefer in alpm-dkms.toml(5)"
            ),
            Self::Kept { module, kernel } => write!(
                f,
                "{module}: stays installed for {kernel}: its replacement is not installed"
            ),
            Self::Changed { module, kernel, file } => write!(
                f,
                "{module} for {kernel}: {} has been changed since its installation and stays\n  \
                 run: dkms install {module} -k {kernel} --force",
                file.display()
            ),
            Self::Copy(kernel) => write!(
                f,
                "{kernel}: skipped: not owned by a package; may be a copy kept until the next boot"
            ),
            Self::SourceMissing { module, dir } => write!(
                f,
                "{module}: source missing: /usr/src/{dir}/dkms.conf does not exist, but pacman did not \
                 remove it (is /usr/src mounted?)\n  reinstall its package, or run: dkms remove {module} --all"
            ),
            Self::NotAutomatic { module, kernel } => write!(
                f,
                "{module}: not built automatically for {kernel}: AUTOINSTALL=\"no\"\n  \
                 run: dkms install {module} -k {kernel}"
            ),
            Self::Deferred { module, kernel, needs } => write!(
                f,
                "{module}: skipped for {kernel}: depends on {needs}, which is not installed"
            ),
            Self::Tied { module, kernel, with } => write!(
                f,
                "{module}: skipped for {kernel}: {with} depends on it and cannot be replaced at the \
                 same time"
            ),
            Self::Already { module, kernel, state } => {
                let already = if state.starts_with("not ") { "" } else { "already " };
                write!(f, "{module}: {already}{state} for {kernel}")
            }
            Self::Problem(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for step in self.steps() {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}
