//! File metadata, which is compared to detect changes.

use std::fs::{FileType, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The number of nanoseconds that must pass after a change to a file before another change is
/// certain to give the file a different timestamp.
///
/// Linux timestamps have a resolution of 10 ms or better; the constant includes a margin.
const TICK: i128 = 100_000_000;

/// Like [`TICK`], for filesystems with timestamps in whole seconds (ext4 with small inodes).
const WHOLE_SECONDS_TICK: i128 = 2_000_000_000;

/// A file's size, modification and change times, inode, device, mode and type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    inode: u64,
    device: u64,
    mode: u32,
    kind: FileType,
}

impl Stat {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
            mode: meta.mode(),
            kind: meta.file_type(),
        }
    }

    pub(super) fn kind(&self) -> FileType {
        self.kind
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the ctime in nanoseconds since the Unix epoch.
    pub(crate) fn changed(&self) -> i128 {
        let (seconds, nanoseconds) = self.ctime;
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    }

    /// Returns true if all fields except the ctime are equal. The ctime changes whenever a hard
    /// link to the file is created.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.size, self.mtime, self.inode, self.device, self.mode)
            == (other.size, other.mtime, other.inode, other.device, other.mode)
    }

    /// Returns true if the mode has at least one execute bit.
    pub(super) fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }

    /// Appends all fields except the type to `bytes`. The mode includes the type.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let times = [self.mtime.0, self.mtime.1, self.ctime.0, self.ctime.1];
        let [size, inode, device] = [self.size, self.inode, self.device].map(u64::to_le_bytes);
        bytes.extend([size, inode, device].concat());
        bytes.extend(times.map(i64::to_le_bytes).concat());
        bytes.extend(self.mode.to_le_bytes());
    }

    /// Returns true if the file last changed so long before `now` that a new change is certain to
    /// give it a new ctime.
    pub(super) fn is_stable(&self, now: i128) -> bool {
        let tick = if self.ctime.1 == 0 { WHOLE_SECONDS_TICK } else { TICK };
        self.changed() + tick < now
    }
}

/// The device, inode and change time of a file. The stamp is different once the file has been
/// changed or replaced. It is stored as `DEVICE INODE SECONDS.NANOSECONDS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStamp(String);

impl FileStamp {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let (device, inode) = (meta.dev(), meta.ino());
        Self(format!("{device} {inode} {}.{:09}", meta.ctime(), meta.ctime_nsec()))
    }
}

/// Returns the current time in nanoseconds since the Unix epoch.
pub(crate) fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
