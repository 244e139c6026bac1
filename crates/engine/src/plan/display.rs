//! Plans in words, for people: what a dry run prints and what a hook says.

use std::fmt;

use super::{Action, Note, Plan, Step};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(module) => write!(f, "add {module}"),
            Self::TakeIn { module, from } => {
                write!(f, "copy the source of {module} from {}", from.display())
            }
            Self::Load { module, build, .. } => {
                write!(f, "take over what was built of {module} for {}", build.kernel)
            }
            Self::UseKept(module) => write!(f, "use the kept source of {module}"),
            Self::Adopt { module, kernel, .. } => {
                write!(f, "take over {module} for {kernel} from dkms")
            }
            Self::Build { module, kernel } => write!(f, "build {module} for {kernel}"),
            Self::Install { module, kernel, replaces: None } => {
                write!(f, "install {module} for {kernel}")
            }
            Self::Install { module, kernel, replaces: Some(old) } => {
                write!(f, "install {module} for {kernel} in place of {}", old.version)
            }
            Self::Uninstall(module, kernel) => write!(f, "uninstall {module} from {kernel}"),
            Self::Unbuild(module, kernel) => {
                write!(f, "forget what was built of {module} for {kernel}")
            }
            Self::Deregister(module) => write!(f, "forget {module}"),
            Self::Depmod(kernel) => write!(f, "index the modules of {kernel} (depmod)"),
            Self::Sweep(kernel) => write!(f, "remove what is left of {kernel}"),
            Self::Leave => f.write_str("remove our own files from the dkms tree"),
            Self::Fail { module, kernel: Some(kernel), failure } => {
                write!(f, "fail {module} for {kernel}: {failure}")
            }
            Self::Fail { module, kernel: None, failure } => write!(f, "fail {module}: {failure}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action)?;
        if !self.why.is_empty() {
            let why: Vec<String> = self.why.iter().map(ToString::to_string).collect();
            write!(f, " ({})", why.join("; "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeaders { kernel, pkgbase: None, .. } => {
                write!(f, "{kernel} has no headers: no module can be built for it")
            }
            Self::NoHeaders { kernel, pkgbase: Some(base), other: None } => {
                write!(f, "{kernel} ({base}) has no headers: install {base}-headers")
            }
            Self::NoHeaders { kernel, pkgbase: Some(base), other: Some(other) } => write!(
                f,
                "{kernel} ({base}) has no headers, but {base}-headers for {other} are installed: \
                 a partial upgrade; bring {base} and {base}-headers to the same version (pacman -Syu)"
            ),
            Self::Excluded { module, kernel, why } => {
                write!(f, "{module} is not meant for {kernel}: {why}")
            }
            Self::KnownFailure { module, kernel, what, log, stays } => {
                write!(f, "{module} did not build for {kernel} before and nothing changed")?;
                if let Some(old) = stays {
                    write!(f, " ({old} stays installed)")?;
                }
                write!(
                    f,
                    ": {what}; log: {}; try again: dkms install {module} -k {kernel}",
                    log.display()
                )
            }
            Self::Kept { module, kernel } => write!(
                f,
                "{module} stays installed for {kernel}: the version that replaces it is not \
                 installed there"
            ),
            Self::Copy(kernel) => write!(
                f,
                "{kernel} belongs to no package (a copy kept until the next boot): left alone"
            ),
            Self::SourceMissing { module, dir } => write!(
                f,
                "the source of {module} is missing, and no transaction removed it: is \
                 /usr/src/{dir} not mounted? What is installed stays; reinstall its package, or \
                 remove it with dkms remove {module} --all"
            ),
            Self::NotAutomatic(module) => {
                write!(f, "{module} has AUTOINSTALL=\"no\": build it with dkms install {module}")
            }
            Self::Deferred { module, kernel, needs } => {
                write!(f, "{module} waits for {needs}, which is not known for {kernel} yet")
            }
            Self::Already { module, kernel, state } => {
                let already = if state.starts_with("not ") { "" } else { "already " };
                write!(f, "{module} is {already}{state} for {kernel}")
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
