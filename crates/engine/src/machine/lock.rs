//! The lock that allows only one run at a time to change the trees.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use crate::machine::Trees;
use crate::os::durable::{self, FileError};
use crate::os::process::Environment;

/// The environment variable that a run sets for its child processes.
///
/// Without it, a `dkms` command in a dkms.conf or a script would wait forever for the lock of its
/// own run.
pub(crate) const WITHIN_RUN: &str = "ALPM_DKMS_WITHIN_RUN";

/// The time between two attempts of [`Lock::take_within`] to acquire the lock.
const RETRY: Duration = Duration::from_millis(100);

/// The exclusive permission to change the trees. Dropping it releases the lock.
///
/// If the process is killed, the kernel releases the lock.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
}

/// Returns true if a script or a conf of another run started this process.
pub(super) fn is_within_run(env: &Environment) -> bool {
    env.get(WITHIN_RUN).is_some()
}

impl Lock {
    /// Acquires the lock. If another run holds it, calls `report` with a message and then waits.
    /// The message names the holder, if the holder is known.
    ///
    /// Any user who can open the lock file, even only for reading, can lock it. The file's mode is
    /// therefore 0600.
    ///
    /// If a run started this process (`env` contains `ALPM_DKMS_WITHIN_RUN`), returns at once
    /// without acquiring the lock: the parent run holds it.
    ///
    /// # Errors
    /// [`FileError`] if the dkms tree cannot be created, or if the lock file cannot be created,
    /// opened or locked. This happens without root privileges or on a read-only file system.
    pub fn take(
        trees: &Trees,
        env: &Environment,
        report: &mut dyn FnMut(&str),
    ) -> Result<Self, FileError> {
        if is_within_run(env) {
            return Ok(Self { file: None });
        }
        let path = trees.lock();
        let mut file = open(trees)?;
        if !try_lock(&file, &path)? {
            report(&match holder(&mut file) {
                Some(holder) => format!("waiting for another run to finish: {holder}"),
                None => "waiting for another run to finish".to_owned(),
            });
            file.lock().map_err(FileError::when("lock", &path))?;
        }
        Ok(Self::held(file))
    }

    /// Acquires the lock like [`take`](Self::take), but waits at most `patience` for another run.
    /// Returns `None` if that run still holds the lock after this time.
    ///
    /// # Errors
    /// The same as those of [`take`](Self::take).
    pub fn take_within(
        trees: &Trees,
        env: &Environment,
        patience: Duration,
    ) -> Result<Option<Self>, FileError> {
        if is_within_run(env) {
            return Ok(Some(Self { file: None }));
        }
        let file = open(trees)?;
        let until = Instant::now() + patience;
        while !try_lock(&file, &trees.lock())? {
            if Instant::now() >= until {
                return Ok(None);
            }
            thread::sleep(RETRY);
        }
        Ok(Some(Self::held(file)))
    }

    /// Acquires the lock on the existing lock file `path`. Does not record the holder in the file,
    /// because the file is opened only for reading.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be opened or locked.
    pub(super) fn take_file(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::when("open", path))?;
        file.lock().map_err(FileError::when("lock", path))?;
        Ok(Self { file: Some(file) })
    }

    /// Returns the lock on `file`, and records this process in the file as the holder.
    fn held(mut file: File) -> Self {
        // The text is only informational, so a failure to write it is ignored.
        let program = std::env::args().next().unwrap_or_default();
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "process {} ({program})", std::process::id()));
        Self { file: Some(file) }
    }
}

/// Opens the lock file. Creates it, and the dkms tree, if they do not exist.
fn open(trees: &Trees) -> Result<File, FileError> {
    durable::create_dirs(&trees.dkms)?;
    let path = trees.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .map_err(FileError::when("open", &path))?;
    // Earlier versions created the file with mode 0644. Only its owner can change the mode.
    let _ = file.set_permissions(Permissions::from_mode(0o600));
    Ok(file)
}

/// Returns false if another run holds the lock.
fn try_lock(file: &File, path: &Path) -> Result<bool, FileError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(FileError::when("lock", path)(error)),
    }
}

impl Lock {
    /// Shares the lock with all programs that this process starts after this call. If this process
    /// is killed, other runs wait until those programs have ended.
    pub fn share_with_programs(&self) {
        // Without this, another run would start while a program of a killed run is still running.
        let shared = self.file.as_ref().map(|file| fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())));
        if let Some(Err(error)) = shared {
            log::warn!("cannot share the lock: {error}");
        }
    }
}

/// Returns the text in the lock file, which names a process and its program. Returns `None` if that
/// process is not running that program.
///
/// Until the holder has written its own text, the file contains the text of an earlier run. The
/// process ID in that text may now belong to another program.
fn holder(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let text = text.trim();
    let (id, program) = text.strip_prefix("process ")?.strip_suffix(')')?.split_once(" (")?;
    let command = fs::read(format!("/proc/{}/cmdline", id.parse::<u32>().ok()?)).ok()?;
    let first = command.split(|byte| *byte == 0).next()?;
    (first == program.as_bytes()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rstest::rstest;

    use super::*;

    #[test]
    fn second_run_waits_and_reports_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let first = Lock::take(&trees, &env, &mut |_| panic!("the lock is free")).unwrap();
        let (send, reports) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let (trees, env) = (trees.clone(), env.clone());
            move || {
                Lock::take(&trees, &env, &mut |text| send.send(text.to_owned()).unwrap()).unwrap();
            }
        });
        let report = reports.recv().unwrap();
        assert!(report.contains(&format!("process {}", std::process::id())), "{report}");
        drop(first);
        waiting.join().unwrap();
    }

    #[test]
    fn waiting_for_the_lock_can_be_limited() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let take = |patience| Lock::take_within(&trees, &env, patience).unwrap();
        let first = take(Duration::ZERO).unwrap();
        assert!(take(Duration::from_millis(1)).is_none());
        let waiting = thread::scope(|scope| {
            let waiting = scope.spawn(|| take(Duration::from_mins(1)).is_some());
            drop(first);
            waiting.join().unwrap()
        });
        assert!(waiting);
    }

    #[rstest]
    #[case::created(None)]
    #[case::readable(Some(0o644))]
    #[case::writable(Some(0o666))]
    fn no_other_user_can_open_the_lock(#[case] earlier: Option<u32>) {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(&trees.dkms).unwrap();
        if let Some(mode) = earlier {
            fs::write(trees.lock(), "process 1 (old)\n").unwrap();
            fs::set_permissions(trees.lock(), Permissions::from_mode(mode)).unwrap();
        }
        let inode = || fs::metadata(trees.lock()).map(|meta| meta.ino()).ok();
        let before = inode();
        let _lock = Lock::take(&trees, &Environment::fixed(), &mut |_| {}).unwrap();
        assert_eq!(fs::metadata(trees.lock()).unwrap().mode() & 0o7777, 0o600);
        assert!(before.is_none() || before == inode(), "a replaced file would be another lock");
    }

    #[test]
    fn does_not_open_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(&trees.dkms).unwrap();
        std::os::unix::fs::symlink("elsewhere", trees.lock()).unwrap();
        assert!(Lock::take(&trees, &Environment::fixed(), &mut |_| {}).is_err());
        assert!(!trees.dkms.join("elsewhere").exists());
    }

    #[rstest]
    #[case::empty("".into(), false)]
    #[case::of_no_process("process 4194305 (/usr/bin/dkms)\n".into(), false)]
    #[case::of_another_program(format!("process {} (/usr/bin/dkms)\n", std::process::id()), false)]
    #[case::cut_off("process 12".into(), false)]
    #[case::of_this_process(own_text(), true)]
    fn names_a_holder_only_if_it_is_running(#[case] text: String, #[case] is_named: bool) {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        fs::create_dir_all(&trees.dkms).unwrap();
        fs::write(trees.lock(), &text).unwrap();
        let held = File::open(trees.lock()).unwrap();
        held.lock().unwrap();
        let mut report = String::new();
        // Releases the lock, so that the waiting ends.
        let mut say = |line: &str| {
            line.clone_into(&mut report);
            held.unlock().unwrap();
        };
        Lock::take(&trees, &Environment::fixed(), &mut say).unwrap();
        let tail = if is_named { format!(": {}", text.trim()) } else { String::new() };
        assert_eq!(report, format!("waiting for another run to finish{tail}"));
    }

    fn own_text() -> String {
        format!("process {} ({})\n", std::process::id(), std::env::args().next().unwrap())
    }

    #[test]
    fn command_within_a_run_does_not_wait_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::under(dir.path());
        let env = Environment::fixed();
        let _outer = Lock::take(&trees, &env, &mut |_| {}).unwrap();
        let inner = env.with(WITHIN_RUN, "1");
        Lock::take(&trees, &inner, &mut |_| panic!("it waited")).unwrap();
    }
}
