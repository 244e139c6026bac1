//! Finds the parts of the compiler's toolchain that a transaction replaces.

use std::ffi::OsStr;

use alpm::Ver;
use serde::Serialize;

use crate::command_line::CommandLine;
use crate::database::{Database, Listed, readable};
use crate::package_files::PackageFile;

/// The packages with the programs that build modules.
const TOOLCHAIN: [&str; 8] = ["gcc", "binutils", "glibc", "make", "pahole", "clang", "llvm", "lld"];

/// A package of the toolchain that the transaction replaces by another version.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ReplacedTool {
    name: String,
    /// The arriving version.
    version: String,
    /// The installed version.
    installed: String,
}

/// Returns the toolchain packages that the transaction replaces.
///
/// A package's new version comes from `files`, the arriving package files. If no file contains the
/// package, the version comes from `available`, the packages in the sync databases. This applies
/// only if the command line `line` upgrades the system, names the package or is unknown.
pub fn replaced<'a>(
    database: &Database,
    files: impl Iterator<Item = &'a PackageFile<'a>> + Clone,
    available: &[Listed<'_>],
    line: Option<&CommandLine>,
) -> Vec<ReplacedTool> {
    let replacement = |name: &str| {
        let installed = database.installed_package(name)?;
        let file = files.clone().find(|file| file.name == name).map(|file| file.version.as_str());
        let listed = || {
            let listed = available.iter().find(|package| package.name == name)?;
            let newer = is_newer(listed, &installed) && !listed.package.should_ignore();
            let arrives = match line {
                Some(line) => newer && line.sysupgrade || names(line, name),
                None => newer,
            };
            arrives.then_some(listed.version)
        };
        let version = file.or_else(listed).filter(|version| *version != installed.version)?;
        Some(ReplacedTool {
            name: name.to_owned(),
            version: version.to_owned(),
            installed: installed.version.to_owned(),
        })
    };
    TOOLCHAIN.iter().filter_map(|name| replacement(name)).collect()
}

fn is_newer(listed: &Listed<'_>, installed: &Listed<'_>) -> bool {
    let versions: Option<(&Ver, &Ver)> =
        readable(|| (listed.package.version(), installed.package.version()));
    versions.is_some_and(|(listed, installed)| listed.vercmp(installed).is_gt())
}

/// Returns true if the command line names `package` as a package of the repositories, not as a
/// file.
pub fn names(line: &CommandLine, package: &str) -> bool {
    let name_of = |operand: &OsStr| operand.to_str()?.rsplit('/').next().map(str::to_owned);
    !line.upgrade
        && line.operands.iter().any(|operand| name_of(operand).as_deref() == Some(package))
}
