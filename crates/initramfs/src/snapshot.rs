//! Takes a snapshot of the images, with a copy of each, before other packages' hooks regenerate
//! them.
//!
//! The copies are kept in the dkms tree and never in /boot: /boot is often small, and boot loaders
//! list the files in it. No other user can read them, since an image may contain keys.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Kernels, Machine};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::digest::Digest;
use dkms_engine::os::durable::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::generators::Generator;
use crate::image::{Image, is_signed};
use crate::managed_modules::ManagedModules;
use crate::pending::PendingImages;

/// The free space in bytes that a copy must leave on the file system of the dkms tree.
const SPARE: u64 = 64 * 1024 * 1024;

/// The extension of the temporary file that replaces an image.
pub(crate) const TEMPORARY: &str = "dkms-tmp";

/// The recorded state of the images of one or more kernels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The digest of each kernel's installed objects when the snapshot was taken.
    #[serde(default)]
    objects: BTreeMap<KernelRelease, Digest>,
    #[serde(default)]
    images: Vec<ImageSnapshot>,
}

/// The state of one image when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageSnapshot {
    /// The absolute path of the image on the machine that boots it.
    path: PathBuf,
    /// The metadata that [`stat`] returned; `None` if the image did not exist.
    stat: Option<String>,
    /// The BLAKE3 digest of the image's content; `None` if the image did not exist or could not be
    /// read.
    digest: Option<Digest>,
    /// Whether the image was signed.
    #[serde(default)]
    pub(crate) signed: bool,
    /// The owner and mode of the image; `None` if the image did not exist.
    #[serde(default)]
    access: Option<Access>,
    /// The path of the copy; `None` if the image did not exist or could not be copied.
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

    /// Sets the owner and the mode of `file`. Ignores failures: /boot is often a FAT file system,
    /// whose files have no owners and modes of their own.
    fn give_to(self, file: &File) {
        let _ = fchown(file, Some(self.user), Some(self.group));
        let _ = file.set_permissions(Permissions::from_mode(self.mode));
    }
}

impl ImageSnapshot {
    /// Records the state of an image, and copies the image if there is enough space.
    fn take(machine: &Machine, image: &Image) -> Result<Self, FileError> {
        let file = image.below(&machine.trees.root);
        let signed = is_signed(&file);
        let path = image.path.clone();
        let mut snapshot =
            Self { path, stat: None, digest: None, signed, access: None, copy: None };
        let Ok(meta) = file.metadata() else { return Ok(snapshot) };
        let dir = machine.trees.images();
        create_closed_dir(&dir)?;
        if durable::free_space(&dir).is_none_or(|room| room > meta.len() + SPARE) {
            let name = Digest::of_bytes(image.path.as_os_str().as_encoded_bytes());
            let copy = dir.join(format!("{name}.img"));
            copy_closed(&file, &copy, None).map_err(FileError::when("copy an image to", &copy))?;
            snapshot.copy = Some(copy);
        } else {
            log::warn!(
                "{}: not enough space for a copy of {}",
                dir.display(),
                image.path.display()
            );
        }
        snapshot.digest = Some(Digest::of_file(&file)?);
        snapshot.stat = Some(stat(&meta));
        snapshot.access = Some(Access::of(&meta));
        Ok(snapshot)
    }

    /// Returns true if the image has the same content as when the snapshot was taken.
    ///
    /// An image that was regenerated with the same content counts as unchanged, because it cannot
    /// contain the changed modules.
    pub(crate) fn is_same(&self, image: &Image, root: &Path) -> bool {
        let file = image.below(root);
        let now = file.metadata().ok().map(|meta| stat(&meta));
        now == self.stat || (self.digest.is_some() && Digest::of_file(&file).ok() == self.digest)
    }

    /// Returns true if the image existed when the snapshot was taken and has not been written
    /// since.
    pub(crate) fn is_untouched(&self, image: &Image, root: &Path) -> bool {
        self.stat.is_some()
            && image.below(root).metadata().ok().map(|meta| stat(&meta)) == self.stat
    }

    /// Restores the image from its copy, with the owner and mode that it had.
    ///
    /// Writes a temporary file and renames it to replace the image. If that fails, for example for
    /// lack of space, overwrites the image directly.
    ///
    /// # Errors
    /// [`io::Error`] if there is no copy or the image cannot be written.
    pub(crate) fn restore(&self, image: &Image, root: &Path) -> io::Result<()> {
        let copy = self.copy.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = image.below(root);
        let beside = file.with_extension(TEMPORARY);
        let now = || file.metadata().ok().map(|meta| Access::of(&meta));
        let access = self.access.or_else(now);
        let renamed = copy_closed(copy, &beside, access).and_then(|()| fs::rename(&beside, &file));
        if renamed.is_ok() {
            return Ok(());
        }
        let _ = fs::remove_file(&beside);
        let mut image = File::create(&file)?;
        access.inspect(|access| access.give_to(&image));
        io::copy(&mut File::open(copy)?, &mut image)?;
        image.sync_all()
    }
}

/// Creates the directory `dir` if it does not exist. No other user can enter it.
fn create_closed_dir(dir: &Path) -> Result<(), FileError> {
    durable::create_dirs(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .map_err(FileError::when("set the mode of", dir))
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

/// Takes a snapshot of the images of every kernel with pending images.
/// [`maintain_images`](crate::maintain_images) later compares the images with it.
///
/// # Errors
/// [`FileError`] if the kernels cannot be read or the snapshot cannot be written.
pub fn take_snapshot(machine: &Machine, generator: &Generator) -> Result<(), FileError> {
    let pending = PendingImages::read(machine);
    if pending.is_empty() {
        return Ok(());
    }
    let mut kernels = Kernels::read(&machine.trees)?.all;
    kernels.retain(|kernel| kernel.alive && pending.contains(&kernel.release));
    Snapshot::of_images(machine, generator, &kernels).write(machine)
}

impl Snapshot {
    /// Takes a snapshot of the images of `kernels`.
    ///
    /// Keeps the previous snapshot of an image if the kernel's objects have not changed since then:
    /// that snapshot was taken before any regeneration. Also keeps a previous snapshot with a copy
    /// if the image is now broken: the generator was killed while it was writing.
    fn of_images(machine: &Machine, generator: &Generator, kernels: &[Kernel]) -> Self {
        let earlier = Self::read(machine);
        let mut snapshot = Self::default();
        for kernel in kernels {
            let modules = ManagedModules::read(machine, &kernel.release);
            snapshot.objects.insert(kernel.release.clone(), modules.digest());
            let has_same_objects = earlier.has_objects(&kernel.release, &modules);
            for image in generator.images(machine, kernel) {
                let is_broken = || generator.list(&image.below(&machine.trees.root)).is_err();
                match earlier.of(&image) {
                    Some(old) if has_same_objects || (old.copy.is_some() && is_broken()) => {
                        snapshot.images.push(old.clone());
                    }
                    _ => snapshot.add(machine, &image),
                }
            }
        }
        snapshot
    }

    /// Adds the state of an image, replacing any earlier state. If the image cannot be read or
    /// copied, logs a warning and records only its metadata.
    pub(crate) fn add(&mut self, machine: &Machine, image: &Image) {
        self.images.retain(|old| old.path != image.path);
        let snapshot = ImageSnapshot::take(machine, image).unwrap_or_else(|error| {
            log::warn!("{error}");
            let meta = image.below(&machine.trees.root).metadata().ok();
            ImageSnapshot {
                path: image.path.clone(),
                stat: meta.as_ref().map(stat),
                digest: None,
                signed: false,
                access: meta.as_ref().map(Access::of),
                copy: None,
            }
        });
        self.images.push(snapshot);
    }

    /// Returns true if the installed objects of `kernel`, listed in `modules`, are the same as when
    /// the snapshot was taken.
    pub(crate) fn has_objects(&self, kernel: &KernelRelease, modules: &ManagedModules) -> bool {
        self.objects.get(kernel) == Some(&modules.digest())
    }

    /// Returns the recorded state of an image; `None` if the image is not in the snapshot.
    pub(crate) fn of(&self, image: &Image) -> Option<&ImageSnapshot> {
        self.images.iter().find(|old| old.path == image.path)
    }

    /// Returns the paths of the images in the snapshot, as on the machine that boots them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(|image| image.path.as_path())
    }

    /// Writes the snapshot to the dkms tree.
    ///
    /// # Errors
    /// [`FileError`] if the snapshot cannot be written.
    pub(crate) fn write(&self, machine: &Machine) -> Result<(), FileError> {
        let file = file(machine);
        let text = toml::to_string(self)
            .map_err(io::Error::other)
            .map_err(FileError::when("write", &file))?;
        create_closed_dir(&machine.trees.images())?;
        durable::write(&file, text.as_bytes())
    }

    /// Reads the snapshot from the dkms tree. Returns an empty snapshot if there is none or it is
    /// malformed.
    pub(crate) fn read(machine: &Machine) -> Self {
        let text = fs::read_to_string(file(machine)).unwrap_or_default();
        toml::from_str(&text).unwrap_or_else(|error| {
            log::warn!("{}: ignored: {error}", file(machine).display());
            Self::default()
        })
    }

    /// Deletes the snapshot and its copies.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be removed.
    pub(crate) fn delete(machine: &Machine) -> Result<(), FileError> {
        durable::remove_tree(&machine.trees.images()).map(|_| ())
    }
}

fn file(machine: &Machine) -> PathBuf {
    machine.trees.images().join("snapshot.toml")
}

#[cfg(test)]
mod tests {
    use crate::image::ImageKind;

    use super::*;

    /// Returns a machine and its only image, a file with the text `content`.
    fn test_machine(content: &str) -> (tempfile::TempDir, Machine, Image) {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::for_hook(root.path());
        let image = Image {
            path: "/boot/initramfs-linux.img".into(),
            kind: ImageKind::Initramfs,
            kernel: "7.2.13-arch1-1".parse().unwrap(),
            preset: Some("linux".into()),
            kernel_file: None,
        };
        fs::create_dir(root.path().join("boot")).unwrap();
        fs::write(image.below(root.path()), content).unwrap();
        (root, machine, image)
    }

    #[test]
    fn reads_a_written_snapshot() {
        let (_root, machine, image) = test_machine("old");
        let mut snapshot = Snapshot::default();
        snapshot.add(&machine, &image);
        let modules = ManagedModules::read(&machine, &image.kernel);
        snapshot.objects.insert(image.kernel.clone(), modules.digest());
        snapshot.write(&machine).unwrap();
        let read = Snapshot::read(&machine);
        assert_eq!(read, snapshot);
        assert!(read.has_objects(&image.kernel, &modules));
        assert!(!Snapshot::default().has_objects(&image.kernel, &modules));
        Snapshot::delete(&machine).unwrap();
        assert_eq!(Snapshot::read(&machine), Snapshot::default());
        assert!(!machine.trees.images().exists());
    }

    #[test]
    fn an_image_is_unchanged_until_its_content_changes() {
        let (root, machine, image) = test_machine("old");
        let snapshot = ImageSnapshot::take(&machine, &image).unwrap();
        assert!(snapshot.is_same(&image, root.path()));
        fs::write(image.below(root.path()), "old").unwrap();
        assert!(snapshot.is_same(&image, root.path()));
        fs::write(image.below(root.path()), "new").unwrap();
        assert!(!snapshot.is_same(&image, root.path()));
        fs::remove_file(image.below(root.path())).unwrap();
        assert!(!snapshot.is_same(&image, root.path()));
    }

    #[test]
    fn a_missing_image_is_recorded_as_missing() {
        let (root, machine, image) = test_machine("");
        fs::remove_file(image.below(root.path())).unwrap();
        let snapshot = ImageSnapshot::take(&machine, &image).unwrap();
        assert!(snapshot.is_same(&image, root.path()) && snapshot.copy.is_none());
        fs::write(image.below(root.path()), "new").unwrap();
        assert!(!snapshot.is_same(&image, root.path()));
        assert!(snapshot.restore(&image, root.path()).is_err());
    }

    #[test]
    fn a_copy_replaces_a_damaged_image() {
        let (root, machine, image) = test_machine("good");
        let snapshot = ImageSnapshot::take(&machine, &image).unwrap();
        fs::write(image.below(root.path()), "bad").unwrap();
        snapshot.restore(&image, root.path()).unwrap();
        assert_eq!(fs::read_to_string(image.below(root.path())).unwrap(), "good");
        let names = fs::read_dir(root.path().join("boot")).unwrap();
        assert_eq!(names.count(), 1, "no temporary file is left in /boot");
    }

    /// The mode of a directory such as /boot may be the only protection of a key in an image.
    #[rstest::rstest]
    #[case::readable_by_all(0o644)]
    #[case::readable_by_a_group(0o640)]
    #[case::of_the_owner(0o400)]
    fn only_the_image_has_its_mode(#[case] mode: u32) {
        let (root, machine, image) = test_machine("good");
        let file = image.below(root.path());
        let mode_of = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&file, mode);
        let is_root = fs::metadata(&file).unwrap().uid() == 0;
        let group = if is_root { 1234 } else { fs::metadata(&file).unwrap().gid() };
        std::os::unix::fs::chown(&file, None, Some(group)).unwrap();
        // A directory and a copy of an earlier version.
        fs::create_dir_all(machine.trees.images()).unwrap();
        set_mode(&machine.trees.images(), 0o755);
        let copy = ImageSnapshot::take(&machine, &image).unwrap().copy.unwrap();
        set_mode(&copy, 0o644);

        let snapshot = ImageSnapshot::take(&machine, &image).unwrap();
        assert_eq!(mode_of(&machine.trees.images()), 0o700);
        assert_eq!(mode_of(&copy), 0o600);
        fs::remove_file(&file).unwrap();
        fs::write(&file, "bad").unwrap();
        set_mode(&file, 0o666);
        snapshot.restore(&image, root.path()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "good");
        assert_eq!(mode_of(&file), mode);
        assert_eq!(fs::metadata(&file).unwrap().gid(), group);
    }
}
