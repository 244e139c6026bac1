//! Decides whether a failed build is the fault of the module, the machine or the network.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::Build;
use super::causes::{Cause, CauseKind, CauseTexts};
use super::diagnose::{self, Diagnosis};
use super::log_lines;
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
        let out_of = [CauseKind::DiskFull, CauseKind::Killed, CauseKind::Memory];
        let diagnosis = diagnose::read(&self.log(), &(0..u64::MAX));
        self.blame(code, message, diagnosis.filter(|found| out_of.contains(&found.kind())))
    }

    /// Returns a failure with `code`, `message`, and the cause found in the output of the last
    /// step.
    pub(crate) fn step_failed(&self, log: &MakeLog, code: u8, message: &str) -> Failure {
        let diagnosis = diagnose::read(log.path(), log.last_step());
        self.blame(code, message, diagnosis)
    }

    /// Returns the failure for a step that could not be run or logged.
    pub(super) fn not_run(&self, error: StepError) -> Failure {
        match error {
            StepError::Log(error) => error.into(),
            StepError::Run(error) => {
                let failed = Failure::transient(10, error.to_string());
                Failure { log: Some(self.log()), ..failed.with_hint(self.see_explain()) }
            }
        }
    }

    /// Returns a failure with the meaning of its cause and a line of advice. The failure is
    /// transient if the machine or the network caused it.
    fn blame(&self, code: u8, message: &str, diagnosis: Option<Diagnosis>) -> Failure {
        let log = self.log();
        let left = durable::free_space(&self.machine.trees.dkms).filter(|left| *left < SCARCE);
        let kind = diagnosis.as_ref().map_or(CauseKind::Other, Diagnosis::kind);
        let line = diagnosis.as_ref().map(|found| found.shown(&self.workplace.seen));
        let mut failed = Failure { log: Some(log.clone()), ..Failure::new(code, message) };
        // On a full disk, the log may lack the line that names the cause.
        let is_full = left.is_some()
            || kind == CauseKind::DiskFull
            || room::configure_ran_out(&self.workplace.real);
        let problem = if is_full {
            failed.hint = Some(MAKE_ROOM.to_owned());
            Some(self.disk_full_message(left))
        } else if let Some(limit) = kind.limit() {
            Some(format!("limit reached: {limit}"))
        } else {
            line.as_deref().and_then(|line| self.mount_problem(kind, line)).map(|(why, mount)| {
                let option = if why == "noexec" { "exec" } else { "rw" };
                failed.hint = Some(format!(
                    "run: mount -o remount,{option} {} && dkms autoinstall",
                    mount.display()
                ));
                format!("{} is mounted {why}", mount.display())
            })
        };
        failed.out_of_memory =
            problem.is_none() && matches!(kind, CauseKind::Killed | CauseKind::Memory);
        let network =
            problem.is_none().then(|| network_failure(diagnosis.as_ref(), &log)).flatten();
        failed.transient = problem.is_some()
            || failed.out_of_memory
            || network.is_some()
            || matches!(
                kind,
                CauseKind::MissingProgram | CauseKind::ReadOnly | CauseKind::NotConfined
            );
        failed.cause = line;
        let texts = match network.or(diagnosis) {
            Some(found) => found.cause.map(|cause| self.texts(cause, &found.line.text)),
            None => Cause::of(message).map(|cause| self.texts(cause, message)),
        };
        let CauseTexts { means, remedy, .. } = texts.unwrap_or_default();
        match problem {
            Some(problem) => failed.message = format!("{message}: {problem}"),
            None => failed.means = means.map(String::into_boxed_str),
        }
        let command = remedy.filter(|remedy| remedy.contains("run: "));
        failed.hint = failed.hint.or(command).or_else(|| Some(self.see_explain()));
        failed
    }

    fn texts(&self, cause: &Cause, line: &str) -> CauseTexts {
        cause.texts(line, self.id, self.kernel)
    }

    fn see_explain(&self) -> String {
        format!("see: dkms explain {} -k {}", self.id, self.kernel.release)
    }

    /// Returns `failed` as a transient failure that a full disk caused. `left` is the free space,
    /// in bytes, of the disk with the dkms tree.
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
    /// explains the line.
    fn mount_problem(&self, kind: CauseKind, line: &str) -> Option<(&'static str, PathBuf)> {
        let real = |path: &Path| match path.strip_prefix(&self.workplace.seen) {
            Ok(below) => self.workplace.real.join(below),
            Err(_) => self.workplace.real.join(path),
        };
        let (why, mount) = match kind {
            CauseKind::Denied => ("noexec", noexec_mount(line, real, &is_noexec)),
            CauseKind::ReadOnly => ("read-only", read_only_mount(line, real)),
            _ => return None,
        };
        Some((why, mount?))
    }

    /// Keeps the files of a failed build for the user. On a full disk, which these files may have
    /// filled, keeps only the link to the log.
    ///
    /// The caller must ensure that no two builds of the same module do this at the same time.
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

/// Returns the line of a finished log that explains the failure of its last step.
pub(crate) fn diagnose_last_step(log: &Path) -> Option<Diagnosis> {
    let found = diagnose::read(log, &log_lines::last_step(log));
    network_failure(found.as_ref(), log).or(found)
}

/// Returns the line that shows that the network caused a failure; `None` if the network did not
/// cause the failure.
///
/// A failed download often becomes visible only later, as a missing file. Other errors in the
/// source are not blamed on the network, even if a download failed before.
fn network_failure(diagnosis: Option<&Diagnosis>, log: &Path) -> Option<Diagnosis> {
    let missing =
        || diagnosis.is_some_and(|found| found.line.text.contains("No such file or directory"));
    match diagnosis.map_or(CauseKind::Other, Diagnosis::kind) {
        CauseKind::Network => diagnosis.cloned(),
        CauseKind::Source | CauseKind::Link | CauseKind::Symbol if !missing() => None,
        CauseKind::Killed | CauseKind::Memory => None,
        _ => diagnose::network_failure(log),
    }
}

/// Returns the mount that prevents the execution of a program named in `line`, which ends with
/// "Permission denied". `real` returns the real path of a file that `line` names. `is_noexec`
/// returns true for a path on a file system that is mounted with `noexec`.
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
