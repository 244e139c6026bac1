//! The entries for pending images, one for each kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use super::{PendingFile, PendingList, PendingWork};
use crate::names::KernelRelease;
use crate::os::durable::{self, Durability, FileError};
use crate::os::shared::lock;
use crate::os::stat::FileStamp;
use crate::os::toml_file;
use crate::os::unsynced::Unsynced;

/// Locked while the entries are changed, because both the main thread and the thread that installs
/// modules change them.
static CHANGING: Mutex<()> = Mutex::new(());

/// An addition to an entry. The addition can be taken back if the objects do not change after all.
#[derive(Debug)]
pub(crate) struct NotedImages {
    kernel: KernelRelease,
    /// The objects in the entry before the addition; `None` if there was no entry.
    before: Option<BTreeSet<String>>,
    /// The stamp of the file after the addition; `None` if the entry already contained the objects.
    written: Option<FileStamp>,
}

impl PendingList {
    /// Adds `objects` to the entry for the images of `kernel`.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(crate) fn note_images(
        &self,
        kernel: &KernelRelease,
        objects: &BTreeSet<String>,
        durability: Durability,
    ) -> Result<NotedImages, FileError> {
        let _alone = lock(&CHANGING);
        let work = PendingWork::Image { kernel: kernel.clone(), objects: objects.clone() };
        let path = self.dir.join(work.file_name());
        let before = objects_in(&path);
        let mut noted = NotedImages { kernel: kernel.clone(), before, written: None };
        let is_known = |known: &BTreeSet<String>| !objects.is_empty() && objects.is_subset(known);
        if !noted.before.as_ref().is_some_and(is_known) {
            // An empty set also rewrites the file: the new stamp prevents an earlier addition from
            // being taken back.
            let all = objects.iter().chain(noted.before.iter().flatten()).cloned().collect();
            self.write_images(kernel, all, durability)?;
            noted.written = stamp(&path);
        }
        Ok(noted)
    }

    /// Takes back an addition to an entry, unless another addition followed.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written or removed.
    pub(crate) fn take_back_images(&self, noted: NotedImages) -> Result<(), FileError> {
        let _alone = lock(&CHANGING);
        let NotedImages { kernel, before, written } = noted;
        let work = PendingWork::Image { kernel: kernel.clone(), objects: BTreeSet::new() };
        let path = self.dir.join(work.file_name());
        if written.is_none() || stamp(&path) != written {
            return Ok(());
        }
        match before {
            Some(objects) => self.write_images(&kernel, objects, Durability::Full),
            None => durable::remove_file_if_there(&path).map(drop),
        }
    }

    fn write_images(
        &self,
        kernel: &KernelRelease,
        objects: BTreeSet<String>,
        durability: Durability,
    ) -> Result<(), FileError> {
        let work = PendingWork::Image { kernel: kernel.clone(), objects };
        let path = self.dir.join(work.file_name());
        toml_file::write_with(&path, &PendingFile::of(work), durability)
    }

    /// Adds the files of pending images to `unsynced`, because these files have been written
    /// without being synced.
    pub(crate) fn add_images_to(&self, unsynced: &mut Unsynced) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let images = entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(b"image-"));
        for image in images {
            unsynced.add_file(image.path());
            unsynced.add_dir(&self.dir);
        }
    }
}

/// Returns the objects in the entry `path`; `None` if there is no such entry.
fn objects_in(path: &Path) -> Option<BTreeSet<String>> {
    match toml_file::read(path).and_then(PendingFile::work) {
        Some(PendingWork::Image { objects, .. }) => Some(objects),
        _ => None,
    }
}

fn stamp(path: &Path) -> Option<FileStamp> {
    fs::metadata(path).map(|meta| FileStamp::of(&meta)).ok()
}
