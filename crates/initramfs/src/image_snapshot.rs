//! The state of one image before it is regenerated, with a copy of the image.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use dkms_engine::os::digest::Digest;
use dkms_engine::os::durable::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::image::{Contents, Image, is_signed};

/// The extension of the temporary file that replaces an image.
pub(crate) const TEMPORARY: &str = "dkms-tmp";

/// A copy is made only if this many times its size is still free afterwards, because the generator
/// and the rest of the transaction also need space in /var.
const SPARE_COPIES: u64 = 3;

/// The state of one image when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageSnapshot {
    #[serde(flatten)]
    pub(crate) image: Image,
    /// Whether the image existed when the snapshot was taken or at the start of the transaction.
    /// Another hook may have removed it in between.
    pub(crate) existed: bool,
    /// The metadata that [`stat`] returned; `None` if the image did not exist.
    stat: Option<String>,
    /// The size of the image in bytes; 0 if it did not exist.
    size: u64,
    /// The BLAKE3 digest of the image's content; `None` if the image did not exist or could not be
    /// read.
    digest: Option<Digest>,
    /// Whether the image was signed.
    #[serde(default)]
    pub(crate) signed: bool,
    /// The owner and mode of the image; `None` if the image did not exist.
    access: Option<Access>,
    /// The contents of the image; `None` if they could not be listed.
    pub(crate) contents: Option<Contents>,
    /// The path of the copy; `None` if there is none.
    pub(crate) copy: Option<PathBuf>,
}

/// The owner and the mode of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Access {
    user: u32,
    group: u32,
    mode: u32,
}

impl Access {
    fn of(meta: &fs::Metadata) -> Self {
        Self { user: meta.uid(), group: meta.gid(), mode: meta.mode() & 0o7777 }
    }

    /// Sets the owner and the mode of `file`. Ignores failures, because /boot is often a FAT file
    /// system, which stores no owners and modes.
    fn give_to(self, file: &File) {
        let _ = fchown(file, Some(self.user), Some(self.group));
        let _ = file.set_permissions(Permissions::from_mode(self.mode));
    }
}

impl ImageSnapshot {
    /// Records the state of an image that contains `contents`. If the image cannot be read, logs a
    /// warning and records only the image's metadata.
    pub(crate) fn of(image: &Image, root: &Path, contents: Option<Contents>) -> Self {
        let file = image.below(root);
        let meta = file.metadata().ok();
        let digest = meta
            .as_ref()
            .and_then(|_| Digest::of_file(&file).map_err(|error| log::warn!("{error}")).ok());
        Self {
            image: image.clone(),
            existed: meta.is_some(),
            stat: meta.as_ref().map(stat),
            size: meta.as_ref().map_or(0, fs::Metadata::len),
            digest,
            signed: is_signed(&file),
            access: meta.as_ref().map(Access::of),
            contents,
            copy: None,
        }
    }

    /// Records only that an image exists.
    pub(crate) fn existing(image: &Image) -> Self {
        Self {
            image: image.clone(),
            existed: true,
            stat: None,
            size: 0,
            digest: None,
            signed: false,
            access: None,
            contents: None,
            copy: None,
        }
    }

    /// Returns true if the image existed when its state was recorded.
    pub(crate) fn is_recorded(&self) -> bool {
        self.stat.is_some()
    }

    /// Copies the image, if it exists, to the directory `dir`, and closes the directory to other
    /// users. An earlier copy stays if it is equal to the image; otherwise, it is deleted.
    ///
    /// # Errors
    /// The reason why there is no copy: the image cannot be copied, or too little space would be
    /// left.
    pub(crate) fn copy_to(&mut self, dir: &Path, root: &Path) -> Result<(), String> {
        let file = self.image.below(root);
        let Ok(meta) = file.metadata() else { return Ok(()) };
        let name = Digest::of_bytes(self.image.path.as_os_str().as_encoded_bytes());
        let copy = dir.join(format!("{name}.img"));
        create_closed_dir(dir).map_err(|error| error.to_string())?;
        if is_equal(&copy, &file) {
            fs::set_permissions(&copy, Permissions::from_mode(0o600))
                .map_err(FileError::when("set the mode of", &copy))
                .map_err(|error| error.to_string())?;
        } else {
            self.copy = None;
            durable::remove_file_if_there(&copy).map_err(|error| error.to_string())?;
            let needed = meta.len().saturating_mul(SPARE_COPIES + 1);
            if let Some(free) = durable::free_space(dir).filter(|free| *free < needed) {
                let (dir, path) = (dir.display(), self.image.path.display());
                let (free, needed) = (free / 1024, needed / 1024);
                return Err(format!(
                    "not enough space in {dir} for a copy of {path}: {free} KiB free, {needed} KiB \
                     needed"
                ));
            }
            copy_closed(&file, &copy, None)
                .map_err(FileError::when("copy an image to", &copy))
                .map_err(|error| error.to_string())?;
        }
        self.copy = Some(copy);
        Ok(())
    }

    /// Deletes the copy.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be removed.
    pub(crate) fn delete_copy(&mut self) -> Result<(), FileError> {
        match self.copy.take() {
            Some(copy) => durable::remove_file_if_there(&copy).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Returns true if the image has the same content as when the snapshot was taken.
    ///
    /// An image that was regenerated with the same content counts as unchanged, because it cannot
    /// contain the changed modules.
    pub(crate) fn is_same(&self, root: &Path) -> bool {
        let file = self.image.below(root);
        let now = file.metadata().ok().map(|meta| stat(&meta));
        now == self.stat || (self.digest.is_some() && Digest::of_file(&file).ok() == self.digest)
    }

    /// Returns true if the image is now smaller than three quarters of its recorded size. The disk
    /// on which the generator collected the files may have been full, so that files in the image
    /// are empty.
    pub(crate) fn has_shrunk(&self, root: &Path) -> bool {
        self.image.below(root).metadata().is_ok_and(|now| now.len() < self.size / 4 * 3)
    }

    /// Forgets the copy if its file is missing. A run that deletes copies can be killed before it
    /// writes the snapshot.
    pub(crate) fn forget_missing_copy(&mut self) {
        self.copy.take_if(|copy| !copy.exists());
    }

    /// Returns the size of the copy in bytes; 0 if there is none.
    pub(crate) fn copy_size(&self) -> u64 {
        self.copy.as_ref().and_then(|copy| copy.metadata().ok()).map_or(0, |meta| meta.len())
    }

    /// Returns true if the image existed when the snapshot was taken and has not been written
    /// since.
    pub(crate) fn is_untouched(&self, root: &Path) -> bool {
        self.stat.is_some()
            && self.image.below(root).metadata().ok().map(|meta| stat(&meta)) == self.stat
    }

    /// Restores the image from its copy, with the owner and mode that the image had.
    ///
    /// Writes a temporary file and renames it to replace the image. If that fails, for example for
    /// lack of space, overwrites the image directly, but only if `may_overwrite` is true.
    ///
    /// # Errors
    /// [`io::Error`] if there is no copy or the image cannot be written.
    pub(crate) fn restore(&self, root: &Path, may_overwrite: bool) -> io::Result<()> {
        let copy = self.copy.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = self.image.below(root);
        let beside = file.with_extension(TEMPORARY);
        let now = || file.metadata().ok().map(|meta| Access::of(&meta));
        let access = self.access.or_else(now);
        let renamed = copy_closed(copy, &beside, access).and_then(|()| fs::rename(&beside, &file));
        let Err(error) = renamed else { return Ok(()) };
        let _ = fs::remove_file(&beside);
        if !may_overwrite {
            return Err(error);
        }
        let mut image = File::create(&file)?;
        access.inspect(|access| access.give_to(&image));
        let copied =
            File::open(copy).and_then(|mut copy| io::copy(&mut copy, &mut image)).map(|_| ());
        copied.and_then(|()| image.sync_all()).inspect_err(|_| {
            // A partial image is useless, and a generator may need its space.
            let _ = image.set_len(0);
        })
    }
}

/// Creates the directory `dir` if it does not exist. No other user can enter it.
pub(crate) fn create_closed_dir(dir: &Path) -> Result<(), FileError> {
    durable::create_dirs(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .map_err(FileError::when("set the mode of", dir))
}

/// Returns true if both files exist and have the same content.
fn is_equal(one: &Path, other: &Path) -> bool {
    let size = |file: &Path| file.metadata().map(|meta| meta.len()).ok();
    let digest = |file: &Path| Digest::of_file(file).ok();
    size(one).is_some() && size(one) == size(other) && digest(one) == digest(other)
}

/// Copies the file `from` to the new file `to`, replacing an existing one. No other user can read
/// the copy, unless `access` allows it.
fn copy_closed(from: &Path, to: &Path, access: Option<Access>) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    access.inspect(|access| access.give_to(&copy));
    copy.sync_all()
}

/// Returns the size, times, inode and device of a file as text. Every write to the file changes the
/// text.
fn stat(meta: &fs::Metadata) -> String {
    let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    format!("{} {mtime:?} {ctime:?} {} {}", meta.len(), meta.ino(), meta.dev())
}

#[cfg(test)]
mod tests {
    use testroot::TestRoot;

    use crate::image::ImageKind;

    use super::*;

    const IMAGE: &str = "boot/initramfs-linux.img";

    /// Returns a root and its only image, a file with the text `good`.
    fn test_root() -> (TestRoot, Image) {
        let root = TestRoot::new();
        root.write(IMAGE, "good");
        let image = Image {
            path: format!("/{IMAGE}").into(),
            kind: ImageKind::Initramfs,
            kernel: "7.2.13-arch1-1".parse().unwrap(),
            preset: Some("linux".into()),
            kernel_file: None,
        };
        (root, image)
    }

    /// Records the state of the image and copies it.
    fn copied(root: &TestRoot, image: &Image) -> ImageSnapshot {
        let mut snapshot = ImageSnapshot::of(image, root.path(), None);
        snapshot.copy_to(&root.at("copies"), root.path()).expect("a copy");
        snapshot
    }

    #[test]
    fn an_image_is_unchanged_until_its_content_changes() {
        let (root, image) = test_root();
        let snapshot = copied(&root, &image);
        assert!(snapshot.is_same(root.path()));
        root.write(IMAGE, "good");
        assert!(snapshot.is_same(root.path()));
        root.write(IMAGE, "new");
        assert!(!snapshot.is_same(root.path()));
        fs::remove_file(root.at(IMAGE)).unwrap();
        assert!(!snapshot.is_same(root.path()));
    }

    #[test]
    fn an_equal_copy_is_not_made_again() {
        let (root, image) = test_root();
        let copy = copied(&root, &image).copy.unwrap();
        let inode = || fs::metadata(&copy).unwrap().ino();
        let first = inode();
        assert_eq!(copied(&root, &image).copy.as_ref(), Some(&copy));
        assert_eq!(inode(), first);
        root.write(IMAGE, "new!");
        copied(&root, &image);
        assert_eq!(fs::read(&copy).unwrap(), b"new!");
    }

    #[test]
    fn a_missing_image_is_recorded_as_missing() {
        let (root, image) = test_root();
        fs::remove_file(root.at(IMAGE)).unwrap();
        let snapshot = copied(&root, &image);
        assert!(!snapshot.existed && !snapshot.is_recorded() && snapshot.copy.is_none());
        assert!(snapshot.is_same(root.path()));
        root.write(IMAGE, "new");
        assert!(!snapshot.is_same(root.path()));
        assert!(snapshot.restore(root.path(), true).is_err());
    }

    #[test]
    fn a_copy_replaces_a_damaged_image() {
        let (root, image) = test_root();
        let snapshot = copied(&root, &image);
        root.write(IMAGE, "bad");
        snapshot.restore(root.path(), false).unwrap();
        assert_eq!(root.read(IMAGE), "good");
        let names = fs::read_dir(root.at("boot")).unwrap();
        assert_eq!(names.count(), 1, "no temporary file is left in /boot");
    }

    /// The temporary file beside the image cannot be created, because a directory has its name.
    #[test]
    fn only_a_spoilt_image_is_overwritten_in_place() {
        let (root, image) = test_root();
        let snapshot = copied(&root, &image);
        root.write("boot/initramfs-linux.dkms-tmp/x", "");
        root.write(IMAGE, "lacks a module");
        assert!(snapshot.restore(root.path(), false).is_err());
        assert_eq!(root.read(IMAGE), "lacks a module");
        snapshot.restore(root.path(), true).unwrap();
        assert_eq!(root.read(IMAGE), "good");
    }

    /// The mode of a directory such as /boot may be the only protection of a key in an image.
    #[rstest::rstest]
    #[case::readable_by_all(0o644)]
    #[case::readable_by_a_group(0o640)]
    #[case::of_the_owner(0o400)]
    fn only_the_image_has_its_mode(#[case] mode: u32) {
        let (root, image) = test_root();
        let file = root.at(IMAGE);
        let mode_of = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&file, mode);
        let is_root = fs::metadata(&file).unwrap().uid() == 0;
        let group = if is_root { 1234 } else { fs::metadata(&file).unwrap().gid() };
        std::os::unix::fs::chown(&file, None, Some(group)).unwrap();
        // The directory and the copy were created by an earlier version of alpm-dkms.
        root.dir("copies");
        set_mode(&root.at("copies"), 0o755);
        let copy = copied(&root, &image).copy.unwrap();
        set_mode(&copy, 0o644);

        let snapshot = copied(&root, &image);
        assert_eq!(mode_of(&root.at("copies")), 0o700);
        assert_eq!(mode_of(&copy), 0o600);
        fs::remove_file(&file).unwrap();
        root.write(IMAGE, "bad");
        set_mode(&file, 0o666);
        snapshot.restore(root.path(), false).unwrap();
        assert_eq!(root.read(IMAGE), "good");
        assert_eq!(mode_of(&file), mode);
        assert_eq!(fs::metadata(&file).unwrap().gid(), group);
    }
}
