//! Decides whether a failed build is the fault of the module, the machine or the network.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::Build;
use super::diagnose::{self, Cause, Diagnosis};
use super::make_log::{MakeLog, StepError};
use super::room;
use crate::failure::{Failure, MAKE_ROOM};
use crate::os::durable::{self, FileError};
use crate::os::symlinks;

/// The free space, in bytes, below which the disk counts as full after a failed build. It is not 0
/// because make deletes unfinished files, which frees some space.
pub(super) const SCARCE: u64 = 16 * 1024 * 1024;

impl Build<'_> {
    /// Returns a failure with `code` and `message`. All steps so far have succeeded, so their
    /// output can explain the failure only if the machine ran out of a resource.
    pub(crate) fn failed(&self, code: u8, message: &str) -> Failure {
        let out_of = [Cause::DiskFull, Cause::Killed, Cause::Memory];
        let diagnosis = diagnose::read(&self.log(), &(0..u64::MAX), &self.workplace.seen);
        self.blame(code, message, diagnosis.filter(|found| out_of.contains(&found.cause)))
    }

    /// Returns a failure with `code`, `message`, and the cause found in the output of the last
    /// step.
    pub(crate) fn step_failed(&self, log: &MakeLog, code: u8, message: &str) -> Failure {
        let diagnosis = diagnose::read(log.path(), log.last_step(), &self.workplace.seen);
        self.blame(code, message, diagnosis)
    }

    /// Returns the failure for a step that could not be run or logged.
    pub(super) fn not_run(&self, error: StepError) -> Failure {
        match error {
            StepError::Log(error) => error.into(),
            StepError::Run(error) => {
                let log = Some(self.log());
                Failure { log, ..Failure::transient(10, error.to_string()) }
            }
        }
    }

    /// Returns a failure that is transient if the machine or the network caused it.
    fn blame(&self, code: u8, message: &str, diagnosis: Option<Diagnosis>) -> Failure {
        let log = self.log();
        let left = durable::free_space(&self.machine.trees.dkms).filter(|left| *left < SCARCE);
        let cause = diagnosis.as_ref().map_or(Cause::Other, |found| found.cause);
        let line = diagnosis.map(|found| found.line);
        let mut failed = Failure { log: Some(log.clone()), ..Failure::new(code, message) };
        // On a full disk, the log may lack the line that names the cause.
        let is_full = left.is_some()
            || cause == Cause::DiskFull
            || room::configure_ran_out(&self.workplace.real);
        let problem = if is_full {
            failed.hint = Some(MAKE_ROOM.to_owned());
            Some(self.disk_full_message(left))
        } else if let Some(limit) = cause.limit() {
            Some(format!("limit reached: {limit}"))
        } else {
            line.as_deref().and_then(|line| self.mount_problem(cause, line)).map(|(why, mount)| {
                let option = if why == "noexec" { "exec" } else { "rw" };
                failed.hint = Some(format!(
                    "run: mount -o remount,{option} {} && dkms autoinstall",
                    mount.display()
                ));
                format!("{} is mounted {why}", mount.display())
            })
        };
        failed.out_of_memory = problem.is_none() && matches!(cause, Cause::Killed | Cause::Memory);
        failed.network = problem.is_none() && is_network(cause, line.as_deref(), &log);
        failed.transient = problem.is_some()
            || failed.out_of_memory
            || failed.network
            || matches!(cause, Cause::MissingProgram | Cause::ReadOnly | Cause::NotConfined);
        failed.cause = line;
        if let Some(problem) = problem {
            failed.message = format!("{message}: {problem}");
        }
        failed
    }

    /// Returns `failed` as a failure because of a full disk. `left` is the free space of the disk
    /// with the dkms tree.
    pub(super) fn disk_full(&self, failed: Failure, left: u64) -> Failure {
        Failure {
            message: format!("{}: {}", failed.message, self.disk_full_message(Some(left))),
            hint: Some(MAKE_ROOM.to_owned()),
            transient: true,
            ..failed
        }
    }

    fn disk_full_message(&self, left: Option<u64>) -> String {
        let tree = self.machine.trees.dkms.display();
        match left {
            Some(left) => format!("not enough space in {tree}: {} KiB free", left / 1024),
            None => "not enough disk space".into(),
        }
    }

    /// Returns the mount option that explains `line`, and the mount. Returns `None` if no mount
    /// explains it.
    fn mount_problem(&self, cause: Cause, line: &str) -> Option<(&'static str, PathBuf)> {
        let real = |path: &Path| match path.strip_prefix(&self.workplace.seen) {
            Ok(below) => self.workplace.real.join(below),
            Err(_) => self.workplace.real.join(path),
        };
        let (why, mount) = match cause {
            Cause::Denied => ("noexec", noexec_mount(line, real, &is_noexec)),
            Cause::ReadOnly => ("read-only", read_only_mount(line, real)),
            _ => return None,
        };
        Some((why, mount?))
    }

    /// Keeps the files of a failed build for the user. On a full disk, which these files may have
    /// filled, keeps only the link to the log.
    ///
    /// Two builds of the same module must not do this at the same time.
    pub(super) fn keep_files(&self, failed: &Failure) -> Result<(), FileError> {
        if !self.workplace.real.is_dir() {
            return Ok(()); // the source could not be copied
        }
        if failed.hint.as_deref() != Some(MAKE_ROOM) {
            return self.workplace.hand_over();
        }
        self.workplace.clear()?;
        if failed.log.is_none() {
            return Ok(());
        }
        durable::create_dirs(&self.workplace.seen)?;
        self.link_log(&self.workplace.seen)
    }

    /// Creates a link named `make.log` in the directory `dir`, where users of dkms expect the log.
    pub(super) fn link_log(&self, dir: &Path) -> Result<(), FileError> {
        let target = symlinks::text_for(&self.machine.trees.root, &self.log());
        durable::replace_link_unsynced(&dir.join("make.log"), &target)
    }
}

/// Returns true if the network explains a failure with this cause and line.
///
/// A failed download often appears only later, as a missing file. The network does not explain an
/// error in the source, even if a download failed before.
fn is_network(cause: Cause, line: Option<&str>, log: &Path) -> bool {
    let missing = || line.is_some_and(|line| line.contains("No such file or directory"));
    match cause {
        Cause::Network => true,
        Cause::Source | Cause::Link | Cause::Symbol if !missing() => false,
        Cause::Killed | Cause::Memory => false,
        _ => diagnose::shows_network_failure(log),
    }
}

/// Returns the mount that prevents the execution of a program in `line`, which ends with
/// "Permission denied". `real` returns the path of a file that `line` names, and `is_noexec` is
/// true for a path on a file system without the permission to execute.
fn noexec_mount(
    line: &str,
    real: impl Fn(&Path) -> PathBuf,
    is_noexec: &dyn Fn(&Path) -> bool,
) -> Option<PathBuf> {
    line.split(": ").find_map(|part| {
        let path = real(Path::new(part.trim_matches(['\'', '"', '`', '‘', '’'])));
        let mode = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.permissions().mode();
        (mode & 0o111 != 0 && is_noexec(&path)).then(|| mount_of(&path))
    })
}

/// Returns the mount of the first path in `line` that is on a read-only file system.
fn read_only_mount(line: &str, real: impl Fn(&Path) -> PathBuf) -> Option<PathBuf> {
    let words = line.split([' ', ':', '\'', '"', '`', '‘', '’', '(', ')']);
    words.filter(|word| word.contains('/')).find_map(|word| {
        let path = real(Path::new(word));
        let there = path.ancestors().find(|path| path.exists())?;
        has_flag(there, FsFlags::ST_RDONLY).then(|| mount_of(there))
    })
}

fn is_noexec(path: &Path) -> bool {
    has_flag(path, FsFlags::ST_NOEXEC)
}

fn has_flag(path: &Path, flag: FsFlags) -> bool {
    statvfs(path).is_ok_and(|system| system.flags().contains(flag))
}

/// Returns the topmost directory on the file system of `path`.
fn mount_of(path: &Path) -> PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let own = device(path);
    let same = path.ancestors().take_while(|dir| device(dir) == own);
    same.last().unwrap_or(path).to_owned()
}
