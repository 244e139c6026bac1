//! Records failed builds, so that transactions do not repeat them with the same inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::workplace;
use crate::machine::{Machine, Trees};
use crate::names::{Arch, KernelRelease, ModuleId};
use crate::os::digest::Digest;
use crate::os::durable::{self, FileError};
use crate::os::process::Environment;
use crate::os::stat::Stat;
use crate::os::toml_file;

/// The record of a failed build. Transactions do not repeat the build with the same inputs, unless
/// the failure was transient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFailure {
    /// The fingerprint of the build's inputs.
    pub fingerprint: Digest,
    /// Whether the machine caused the failure. If so, the build stays pending, and the entry of the
    /// pending work counts the attempts.
    #[serde(default)]
    pub transient: bool,
    /// The error message, on one line.
    pub what: String,
    /// The path of the build's log.
    pub log: PathBuf,
    /// The programs on which the failure may depend, each with its identity at that time: the
    /// compilers, and the programs that the log reports as missing. The identity of a missing
    /// program is empty.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
}

/// The compilers and linkers that builds use unless the environment names others.
const TOOLCHAIN: [&str; 8] = ["cc", "gcc", "g++", "clang", "as", "ld", "ld.bfd", "ld.lld"];

/// The environment variables that name a compiler or linker, with arguments.
const NAMED_BY: [&str; 4] = ["CC", "KERNEL_CC", "LD", "KERNEL_LD"];

/// The maximum number of bytes of a log that are searched for missing programs.
const MAX_LOG: u64 = 4 << 20;

impl KnownFailure {
    /// Returns the programs on which a failed build in the environment `env` may depend. `log` is
    /// the build's log.
    pub(crate) fn programs_of(
        machine: &Machine,
        env: &Environment,
        log: &Path,
    ) -> BTreeMap<String, String> {
        let named = NAMED_BY.iter().filter_map(|name| env.get(name)?.to_str());
        let named = named.flat_map(str::split_whitespace).map(str::to_owned);
        let usual = TOOLCHAIN.iter().map(|name| (*name).to_owned());
        let names = usual.chain(named).chain(missing_programs(log));
        names.map(|name| (name.clone(), identity(machine, &name))).collect()
    }

    /// Returns true if every program on which the failure may depend is unchanged. Otherwise, the
    /// build may succeed now.
    #[must_use]
    pub(crate) fn is_current(&self, machine: &Machine) -> bool {
        self.programs.iter().all(|(name, then)| identity(machine, name) == *then)
    }

    /// Returns the path of the record for a failed build: `T/.failed/M-V-K-A.toml`.
    #[must_use]
    pub fn path(trees: &Trees, id: &ModuleId, kernel: &KernelRelease, arch: &Arch) -> PathBuf {
        trees.failures().join(format!("{}-{kernel}-{arch}.toml", id.source_dir()))
    }

    /// Reads the record at `path`. Returns `None` if the file is missing or invalid.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        toml_file::read(path)
    }

    /// Writes the record to `path` atomically.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        toml_file::write(path, self)
    }
}

/// Returns the identity of the program `name`: a digest of its stat signature, or an empty string
/// if it is missing.
///
/// A new version changes the identity, and so does a reinstallation, which may have repaired the
/// program.
fn identity(machine: &Machine, name: &str) -> String {
    let Some(path) = machine.env.find(name) else { return String::new() };
    let Ok(meta) = fs::metadata(&path) else { return String::new() };
    let mut bytes = Vec::new();
    Stat::of(&meta).write(&mut bytes);
    Digest::of_bytes(&bytes).to_string()
}

/// Returns the names of the programs that `log` reports as missing.
fn missing_programs(log: &Path) -> BTreeSet<String> {
    let Ok(log) = File::open(log) else { return BTreeSet::new() };
    let lines = BufReader::new(log.take(MAX_LOG)).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| missing_program(&String::from_utf8_lossy(&line))).collect()
}

/// Returns the name of the program that `line` reports as missing; `None` if the line reports
/// something else.
fn missing_program(line: &str) -> Option<String> {
    let line = line.trim_end();
    // `bash: line 1: curl: command not found`, `sh: 1: curl: not found`, `make: curl: No such file
    // or directory`, and our own `cannot run …: program not found: curl; install …`
    let name = if let Some((_, rest)) = line.split_once(": program not found: ") {
        rest.split(';').next()?
    } else if let Some(rest) = line.strip_suffix(": command not found") {
        rest.rsplit(": ").next()?
    } else if let Some(rest) = line.strip_suffix(": not found") {
        rest.rsplit(": ").next()?
    } else {
        let rest = line.strip_suffix(": No such file or directory")?;
        rest.split_once(": ").filter(|(make, _)| make.starts_with("make"))?.1
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._+-/[".contains(c);
    (!name.is_empty() && name.len() < 256 && name.chars().all(is_name)).then(|| name.to_owned())
}

/// Removes the record and the log of a failed build, and the files that the build left in
/// `T/M/V/build`.
pub(crate) fn forget_failure(
    machine: &Machine,
    id: &ModuleId,
    kernel: &KernelRelease,
) -> Result<(), FileError> {
    let trees = &machine.trees;
    let failure = KnownFailure::path(trees, id, kernel, &machine.arch);
    let log = trees.failure_log(id, kernel, &machine.arch);
    for file in [failure, log] {
        durable::remove_file_if_there(&file)?;
    }
    workplace::remove_failed_build(machine, id)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bash("/tmp/pre.sh: line 3: curl: command not found", Some("curl"))]
    #[case::dash("sh: 1: bison: not found", Some("bison"))]
    #[case::make("make[1]: x86_64-elf-gcc: No such file or directory", Some("x86_64-elf-gcc"))]
    #[case::ours(
        "cannot run `flex -v`: program not found: flex; install its package",
        Some("flex")
    )]
    #[case::a_file("cat: notes: No such file or directory", None)]
    #[case::a_sentence("error: symbol foo (bar): not found", None)]
    #[case::nothing("make: Nothing to be done", None)]
    fn recognises_missing_programs(#[case] line: &str, #[case] want: Option<&str>) {
        assert_eq!(missing_program(line).as_deref(), want);
    }
}
