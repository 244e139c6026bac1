//! depmod's index of a kernel's modules, which modprobe reads.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use crate::objects::ObjectName;

/// The files that modprobe and the initramfs generators read. Each run of depmod writes all of
/// them.
const FILES: [&str; 6] = [
    "modules.dep",
    "modules.dep.bin",
    "modules.alias",
    "modules.alias.bin",
    "modules.symbols",
    "modules.symbols.bin",
];

/// The first bytes of the binary files (`INDEX_MAGIC` of libkmod). After a power cut, a file may be
/// empty.
const MAGIC: [u8; 4] = [0xb0, 0x07, 0xf4, 0x57];

/// The index of a kernel's modules.
///
/// It is read from `modules.dep`. depmod writes the same data to `modules.dep.bin`, which modprobe
/// reads. Reading the text needs no program, and works in a chroot and for any root.
#[derive(Debug)]
pub(crate) struct ModuleIndex {
    /// The time at which the oldest file was written.
    written: SystemTime,
    /// The text of `modules.dep`.
    text: String,
}

impl ModuleIndex {
    /// Reads the index in the kernel's directory `dir`. Returns `None` if a file is missing or
    /// damaged.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let written = FILES.iter().map(|name| modified(&dir.join(name))).min()??;
        let mut binary = FILES.iter().filter(|name| name.ends_with(".bin"));
        if !binary.all(|name| has_magic(&dir.join(name))) {
            return None;
        }
        Some(Self { written, text: fs::read_to_string(dir.join(FILES[0])).ok()? })
    }

    /// Returns the file that modprobe loads for the module in the object `path`, or `None` if the
    /// index has no such module. Both paths are relative to the kernel's directory.
    pub(crate) fn loaded_for(&self, path: &str) -> Option<&str> {
        let module = module_of(path)?;
        // Search from the end, because depmod lists the kernel's own modules, about 6,000, first.
        let mut files = self.text.lines().rev().filter_map(|line| Some(line.split_once(':')?.0));
        files.find(|file| module_of(file).as_ref() == Some(&module))
    }

    /// Returns true if the index does not contain the module in the object `path`, or is older than
    /// that object. `path` is relative to the kernel's directory `dir`.
    ///
    /// If a setting in depmod.d prefers another file for the module, the index still contains the
    /// module.
    pub(crate) fn is_older_than(&self, dir: &Path, path: &str) -> bool {
        self.loaded_for(path).is_none()
            || modified(&dir.join(path)).is_some_and(|placed| placed > self.written)
    }
}

fn has_magic(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == MAGIC
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok()
}

/// Returns the name that modprobe uses for the module in the object `path`.
pub(crate) fn module_of(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().and_then(ObjectName::parse)?;
    Some(name.module.replace('-', "_"))
}
