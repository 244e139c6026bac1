//! Identifies the transaction in which a process runs, and tells whether a transaction is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::iter;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{DATABASE, lists, owners, unfinished};
use crate::machine::Trees;
use crate::os::stat::FileStamp;

/// The name of pacman's lock file in its database directory. pacman creates the file before a
/// transaction, keeps it open, and deletes it at the end.
const LOCK: &str = "db.lck";

/// A transaction of pacman or of another program that uses libalpm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The ID of the boot (random(4)); empty if /proc was not mounted.
    boot: String,
    /// The process ID of pacman; 0 if /proc was not mounted.
    pid: u32,
    /// The start time of pacman in clock ticks since the boot (proc_pid_stat(5), field 22).
    started: u64,
    /// pacman's database directory, as an absolute path on the machine.
    database: PathBuf,
    /// pacman's lock file. `None` if it could not be examined.
    lock: Option<FileStamp>,
}

/// The files that a killed pacman left behind, as absolute paths on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// The lock file. While it exists, pacman refuses to change anything.
    pub lock: Option<PathBuf>,
    /// The packages that pacman was installing or removing, each with its directory in the
    /// database. While that directory exists, pacman refuses to install the package.
    pub entries: BTreeSet<(String, PathBuf)>,
}

impl Leftovers {
    /// Returns the packages with incomplete entries in pacman's default database. Returns none while
    /// there is a lock file, since a transaction may be running.
    pub(crate) fn without_lock(trees: &Trees) -> Self {
        let database = Path::new(DATABASE);
        match fs::symlink_metadata(trees.inside(database).join(LOCK)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::in_database(trees, database),
            _ => Self::default(),
        }
    }

    fn in_database(trees: &Trees, database: &Path) -> Self {
        let found = unfinished(&trees.inside(database)).unwrap_or_default().into_iter();
        let entry = |dir| database.join("local").join(dir);
        let entries = found.map(|(package, dir)| (package, entry(dir))).collect();
        Self { lock: None, entries }
    }
}

impl Transaction {
    /// Returns the transaction in which this process, a hook, runs.
    ///
    /// This is the transaction of the nearest ancestor process that keeps pacman's lock file open.
    /// If no ancestor does, it is the transaction of the parent process.
    #[must_use]
    pub fn of_this_hook(trees: &Trees) -> Self {
        let boot = boot_id().unwrap_or_default();
        let locking = ancestors().find_map(|process| Some((lock_of(&process)?, process)));
        let (database, process) = match locking {
            Some((lock, process)) => (lock.parent().map(Path::to_owned), Some(process)),
            None => (None, ancestors().next()),
        };
        let database = database.unwrap_or_else(|| DATABASE.into());
        let lock = fs::symlink_metadata(trees.inside(&database).join(LOCK));
        let (pid, started) = process.map_or((0, 0), |process| (process.pid, process.started));
        let lock = lock.ok().map(|meta| FileStamp::of(&meta));
        Self { boot, pid, started, database, lock }
    }

    /// Returns the owners of `paths`; see [`owners`].
    ///
    /// # Errors
    /// An I/O error if pacman's database cannot be read.
    pub(crate) fn owners(
        &self,
        trees: &Trees,
        paths: &BTreeSet<String>,
    ) -> io::Result<BTreeMap<String, String>> {
        owners(&trees.inside(&self.database), paths)
    }

    /// Returns true if it is certain that pacman's database contains no entry for `package`.
    pub(crate) fn has_removed(&self, trees: &Trees, package: &str) -> bool {
        lists(&trees.inside(&self.database), package).is_ok_and(|listed| !listed)
    }

    /// Returns the leftovers of this and earlier interrupted transactions.
    ///
    /// Returns none if another transaction may be running. An unreadable database counts as having
    /// no incomplete entries.
    pub(crate) fn leftovers(&self, trees: &Trees) -> Leftovers {
        let lock = trees.inside(&self.database).join(LOCK);
        let is_locked = match fs::symlink_metadata(lock) {
            Ok(meta) if self.lock == Some(FileStamp::of(&meta)) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            _ => return Leftovers::default(),
        };
        let lock = (is_locked && self.is_over(trees)).then(|| self.database.join(LOCK));
        Leftovers { lock, ..Leftovers::in_database(trees, &self.database) }
    }

    /// Returns a name that identifies this transaction, even among those of the same process, for
    /// use in the names of files.
    pub(crate) fn short_name(&self) -> String {
        let lock = format!("{} {:?} {:?}", self.boot, self.database, self.lock);
        format!("{}-{}-{}", self.pid, self.started, &blake3::hash(lock.as_bytes()).to_hex()[..8])
    }

    /// Returns true if the transaction is over, whether or not it was completed: its process no
    /// longer exists or is a zombie, or the lock file is missing or has been replaced.
    ///
    /// Examining the process is not enough, because PackageKit and pamac continue to run after a
    /// transaction. Returns false if the process or the lock file cannot be examined, but true if
    /// neither is known.
    #[must_use]
    pub fn is_over(&self, trees: &Trees) -> bool {
        let boot = boot_id();
        if !self.boot.is_empty() && boot.as_ref().is_some_and(|boot| *boot != self.boot) {
            return true;
        }
        if let Some(lock) = &self.lock {
            match fs::symlink_metadata(trees.inside(&self.database).join(LOCK)) {
                Ok(meta) if *lock == FileStamp::of(&meta) => {}
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::NotFound => return true,
                Err(_) => return false,
            }
        }
        if self.pid == 0 {
            return self.lock.is_none();
        }
        match Process::read(self.pid) {
            Ok(Some(process)) => process.started != self.started || process.is_dead(),
            // Without /proc, every process seems to be gone.
            Ok(None) => boot.is_some(),
            Err(_) => false,
        }
    }

    /// Returns true if the process of the transaction is known. It is unknown if /proc was not
    /// mounted.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.pid != 0
    }

    /// Returns the process ID of pacman; 0 if it is unknown.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.pid
    }

    /// Returns true if pacman has started this process, as a hook or from an install scriptlet.
    /// pacman then waits for this process.
    #[must_use]
    pub(crate) fn contains_this_process(&self) -> bool {
        ancestors().any(|process| (process.pid, process.started) == (self.pid, self.started))
    }
}

/// A process, from `/proc/PID/stat`.
struct Process {
    pid: u32,
    parent: u32,
    state: String,
    started: u64,
}

impl Process {
    /// Reads the process `pid`. Returns `None` if there is no such process.
    fn read(pid: u32) -> io::Result<Option<Self>> {
        Self::read_from(&format!("/proc/{pid}/stat"))
    }

    fn read_from(path: &str) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // The process has ended since the file was opened.
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::parse(&text).map(Some).ok_or_else(|| io::Error::from(ErrorKind::InvalidData))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in parentheses, can contain blanks and parentheses.
        let (start, fields) = text.rsplit_once(") ")?;
        let pid = start.split(' ').next()?.parse().ok()?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?.to_owned();
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { pid, parent, state, started })
    }

    /// Returns true if the process has ended, but its parent has not waited for it.
    fn is_dead(&self) -> bool {
        matches!(self.state.as_str(), "Z" | "X" | "x")
    }
}

/// Returns the parent of this process, the parent's parent and so on. Returns nothing if /proc is
/// not mounted.
fn ancestors() -> impl Iterator<Item = Process> {
    // getppid(2) is not used: if /proc belongs to another PID namespace, the process IDs there
    // differ.
    let this = Process::read_from("/proc/self/stat").ok().flatten();
    let parent = |process: &Process| match process.parent {
        0 => None,
        parent => Process::read(parent).ok().flatten(),
    };
    iter::successors(this, parent).skip(1)
}

/// Returns the path of pacman's lock file if `process` keeps it open.
fn lock_of(process: &Process) -> Option<PathBuf> {
    let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).ok()?;
    let paths = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.into_iter().find(|path| path.file_name().is_some_and(|name| name == LOCK))
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use rstest::rstest;

    use super::*;

    /// Returns a transaction of this process, with a lock file below `root`, and the trees below
    /// `root`.
    fn transaction(root: &Path) -> (Transaction, Trees) {
        let database = root.join("var/lib/pacman");
        fs::create_dir_all(&database).unwrap();
        let lock = database.join(LOCK);
        let _ = File::create_new(&lock);
        let meta = fs::symlink_metadata(&lock).unwrap();
        let this = Process::read_from("/proc/self/stat").unwrap().unwrap();
        let transaction = Transaction {
            boot: boot_id().unwrap(),
            pid: this.pid,
            started: this.started,
            database: DATABASE.into(),
            lock: Some(FileStamp::of(&meta)),
        };
        (transaction, Trees::under(root))
    }

    #[test]
    fn a_transaction_ends_with_its_lock() {
        let root = tempfile::tempdir().unwrap();
        let (transaction, trees) = transaction(root.path());
        assert!(!transaction.is_over(&trees));
        let lock = root.path().join("var/lib/pacman").join(LOCK);
        fs::remove_file(&lock).unwrap();
        assert!(transaction.is_over(&trees), "the lock is gone");
        // Another transaction of the same process, such as packagekitd.
        File::create_new(&lock).unwrap();
        fs::set_permissions(&lock, Permissions::from_mode(0o000)).unwrap();
        assert!(transaction.is_over(&trees), "the lock is another one");
    }

    #[rstest]
    #[case::other_boot(|it: &mut Transaction| it.boot = "another".into(), true)]
    #[case::other_process(|it: &mut Transaction| it.started += 1, true)]
    #[case::no_process(|it: &mut Transaction| it.pid = 4_194_305, true)]
    #[case::unknown_lock(|it: &mut Transaction| it.lock = None, false)]
    #[case::unknown_boot(|it: &mut Transaction| it.boot.clear(), false)]
    #[case::only_the_lock_is_known(unknown, false)]
    fn a_transaction_ends_with_its_process(
        #[case] change: impl Fn(&mut Transaction),
        #[case] want: bool,
    ) {
        let root = tempfile::tempdir().unwrap();
        let (mut transaction, trees) = transaction(root.path());
        change(&mut transaction);
        assert_eq!(transaction.is_over(&trees), want);
    }

    /// Removes the facts that cannot be recorded without /proc.
    fn unknown(transaction: &mut Transaction) {
        transaction.boot.clear();
        (transaction.pid, transaction.started) = (0, 0);
    }

    #[test]
    fn a_killed_transaction_leaves_its_lock_and_an_incomplete_entry() {
        let root = tempfile::tempdir().unwrap();
        let (mut transaction, trees) = transaction(root.path());
        let database = root.path().join("var/lib/pacman");
        fs::create_dir_all(database.join("local/zfs-dkms-2-1")).unwrap();
        let entries: BTreeSet<(String, PathBuf)> =
            [("zfs-dkms".into(), "/var/lib/pacman/local/zfs-dkms-2-1".into())].into();
        let leftovers = |lock: Option<&str>| Leftovers {
            lock: lock.map(PathBuf::from),
            entries: entries.clone(),
        };
        assert_eq!(transaction.leftovers(&trees), leftovers(None), "a hook of the transaction");
        transaction.pid = 4_194_305;
        assert_eq!(transaction.leftovers(&trees), leftovers(Some("/var/lib/pacman/db.lck")));
        fs::remove_file(database.join(LOCK)).unwrap();
        assert_eq!(transaction.leftovers(&trees), leftovers(None), "the user has deleted the lock");
        assert_eq!(Leftovers::without_lock(&trees), leftovers(None));
        fs::write(database.join(LOCK), "of another transaction").unwrap();
        assert_eq!(transaction.leftovers(&trees), Leftovers::default());
        assert_eq!(Leftovers::without_lock(&trees), Leftovers::default());
    }

    #[test]
    fn an_unreadable_lock_ends_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (transaction, trees) = transaction(root.path());
        let database = root.path().join("var/lib/pacman");
        fs::rename(&database, root.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("pacman", &database).unwrap();
        assert!(!transaction.is_over(&trees), "too many levels of symbolic links");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the engine's own processes leave no zombies")]
    fn a_zombie_is_over() {
        let root = tempfile::tempdir().unwrap();
        let (mut transaction, trees) = transaction(root.path());
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::read(child.id()).unwrap().unwrap();
        (transaction.pid, transaction.started) = (process.pid, process.started);
        assert!(!transaction.is_over(&trees));
        child.kill().unwrap();
        while Process::read(child.id()).unwrap().is_some_and(|process| !process.is_dead()) {
            std::thread::yield_now();
        }
        assert!(transaction.is_over(&trees));
        child.wait().unwrap();
    }

    #[test]
    fn finds_an_ancestor_that_keeps_the_lock_open() {
        let root = tempfile::tempdir().unwrap();
        let (transaction, trees) = transaction(root.path());
        assert!(!transaction.contains_this_process(), "a process is no ancestor of itself");
        let parent = ancestors().next().unwrap();
        let around = Transaction { pid: parent.pid, started: parent.started, ..transaction };
        assert!(around.contains_this_process());
        // No ancestor of this test keeps a lock file open.
        let found = Transaction::of_this_hook(&trees);
        assert_eq!((found.pid, found.started), (around.pid, around.started));
        let _open = File::open(root.path().join("var/lib/pacman").join(LOCK)).unwrap();
        let this = Process::read_from("/proc/self/stat").unwrap().unwrap();
        assert_eq!(lock_of(&this), Some(root.path().join("var/lib/pacman").join(LOCK)));
    }

    #[test]
    fn reads_a_process_with_blanks_and_parentheses_in_its_name() {
        let fields = "S 42 1 1 0 -1 4 1 0 0 0 1 2 0 0 20 0 1 0 777 1 2";
        let process = Process::parse(&format!("17 (a) b (c)) {fields}")).unwrap();
        assert_eq!((process.pid, process.parent, process.started), (17, 42, 777));
        assert!(Process::parse("17 (cut").is_none());
    }
}
