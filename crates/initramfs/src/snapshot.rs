//! What images were before other packages' hooks regenerated them, with a copy of each.
//!
//! The copies are kept in the dkms tree, never in /boot: room is short there, and boot loaders list
//! whatever they find.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Machine};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::digest::Digest;
use dkms_engine::os::durable::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::generators::Generator;
use crate::image::Image;
use crate::image::signature;
use crate::pending::Ours;

/// A copy is not worth filling the file system of /var for: so much, in bytes, has to be left.
const SPARE: u64 = 64 * 1024 * 1024;

/// The images as they were noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// For each kernel, what its objects were: those that stood there when its images were noted.
    #[serde(default)]
    objects: BTreeMap<KernelRelease, Digest>,
    #[serde(default)]
    images: Vec<Noted>,
}

/// One image as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Where it is, as the machine sees it.
    path: PathBuf,
    /// What stat(2) said; none if it was not there.
    stat: Option<String>,
    /// blake3 of its content, if it was there.
    digest: Option<Digest>,
    /// Whether it carried a signature.
    #[serde(default)]
    pub signed: bool,
    /// A copy, if there was room for one.
    pub copy: Option<PathBuf>,
}

impl Noted {
    /// Notes an image, with a copy.
    fn take(machine: &Machine, image: &Image) -> Result<Self, FileError> {
        let file = image.below(&machine.trees.root);
        let signed = signature::is_signed(&file);
        let mut noted =
            Self { path: image.path.clone(), stat: None, digest: None, signed, copy: None };
        let Ok(meta) = file.metadata() else { return Ok(noted) };
        let dir = machine.trees.images();
        durable::create_dirs(&dir)?;
        if durable::room(&dir).is_none_or(|room| room > meta.len() + SPARE) {
            let name = Digest::of_bytes(image.path.as_os_str().as_encoded_bytes());
            let copy = dir.join(format!("{name}.img"));
            fs::copy(&file, &copy)
                .and_then(|_| File::open(&copy)?.sync_all())
                .map_err(FileError::when("copy an image to", &copy))?;
            noted.copy = Some(copy);
        } else {
            log::warn!("{} has no room for a copy of {}", dir.display(), image.path.display());
        }
        noted.digest = Some(Digest::of_file(&file)?);
        noted.stat = Some(stat(&meta));
        Ok(noted)
    }

    /// Whether the image is still what it was. One that was made again with the same content is: whatever changed
    /// is not in it.
    #[must_use]
    pub fn is_same(&self, image: &Image, root: &Path) -> bool {
        let file = image.below(root);
        let now = file.metadata().ok().map(|meta| stat(&meta));
        now == self.stat || (self.digest.is_some() && Digest::of_file(&file).ok() == self.digest)
    }

    /// Whether nobody has written the image since.
    #[must_use]
    pub(crate) fn is_untouched(&self, image: &Image, root: &Path) -> bool {
        self.stat.is_some()
            && image.below(root).metadata().ok().map(|meta| stat(&meta)) == self.stat
    }

    /// Puts the copy back in the image's place, by a rename where there is room for both.
    ///
    /// # Errors
    /// [`io::Error`] if there is no copy, or it cannot be written.
    pub fn put_back(&self, image: &Image, root: &Path) -> io::Result<()> {
        let copy = self.copy.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = image.below(root);
        let beside = file.with_extension("dkms-tmp");
        let renamed = fs::copy(copy, &beside)
            .and_then(|_| File::open(&beside)?.sync_all())
            .and_then(|()| fs::rename(&beside, &file));
        if renamed.is_ok() {
            return Ok(());
        }
        let _ = fs::remove_file(&beside);
        fs::copy(copy, &file).and_then(|_| File::open(&file)?.sync_all())
    }
}

/// Size, times, inode and device: what differs if anybody has written a file.
fn stat(meta: &fs::Metadata) -> String {
    let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    format!("{} {mtime:?} {ctime:?} {} {}", meta.len(), meta.ino(), meta.dev())
}

impl Note {
    /// Notes the images of these kernels as they are now. What was noted since their objects are what they are stays: it
    /// shows what came after. So does the copy of an image that is broken (a generator was killed while it wrote).
    #[must_use]
    pub fn take(machine: &Machine, generator: Generator, kernels: &[Kernel]) -> Self {
        let earlier = Self::read(machine);
        let mut note = Self::default();
        for kernel in kernels {
            let ours = Ours::read(machine, &kernel.release);
            note.objects.insert(kernel.release.clone(), ours.digest());
            let is_of = earlier.is_of(&kernel.release, &ours);
            for image in generator.images(machine, kernel) {
                let is_broken = || generator.list(&image.below(&machine.trees.root)).is_err();
                match earlier.of(&image) {
                    Some(noted) if is_of || (noted.copy.is_some() && is_broken()) => {
                        note.images.push(noted.clone());
                    }
                    _ => note.add(machine, &image),
                }
            }
        }
        note
    }

    /// Notes an image, in place of what was noted of it. Of one that cannot be copied or read that it is there, with
    /// a line in the log.
    pub(crate) fn add(&mut self, machine: &Machine, image: &Image) {
        self.images.retain(|noted| noted.path != image.path);
        let noted = Noted::take(machine, image).unwrap_or_else(|error| {
            log::warn!("{error}");
            let stat = image.below(&machine.trees.root).metadata().ok().map(|meta| stat(&meta));
            Noted { path: image.path.clone(), stat, digest: None, signed: false, copy: None }
        });
        self.images.push(noted);
    }

    /// Whether a kernel's images were noted while it had these objects.
    #[must_use]
    pub fn is_of(&self, kernel: &KernelRelease, ours: &Ours) -> bool {
        self.objects.get(kernel) == Some(&ours.digest())
    }

    /// What was noted of an image.
    #[must_use]
    pub fn of(&self, image: &Image) -> Option<&Noted> {
        self.images.iter().find(|noted| noted.path == image.path)
    }

    /// Writes the note for the hook that comes after the others.
    ///
    /// # Errors
    /// [`FileError`] if it cannot be written.
    pub fn write(&self, machine: &Machine) -> Result<(), FileError> {
        let file = file(machine);
        let text = toml::to_string(self)
            .map_err(io::Error::other)
            .map_err(FileError::when("write", &file))?;
        durable::create_dirs(&machine.trees.images())?;
        durable::write(&file, text.as_bytes())
    }

    /// Reads what was noted in this transaction; nothing if nothing was.
    #[must_use]
    pub fn read(machine: &Machine) -> Self {
        let text = fs::read_to_string(file(machine)).unwrap_or_default();
        toml::from_str(&text).unwrap_or_else(|error| {
            log::warn!("{} is ignored: {error}", file(machine).display());
            Self::default()
        })
    }

    /// Forgets what was noted, copies and all.
    ///
    /// # Errors
    /// [`FileError`] if something stays.
    pub fn forget(machine: &Machine) -> Result<(), FileError> {
        durable::remove_tree(&machine.trees.images()).map(|_| ())
    }
}

fn file(machine: &Machine) -> PathBuf {
    machine.trees.images().join("note.toml")
}

#[cfg(test)]
mod tests {
    use crate::image::Kind;

    use super::*;

    /// A machine with one image, which holds this.
    fn test_machine(content: &str) -> (tempfile::TempDir, Machine, Image) {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::for_hook(root.path());
        let image = Image {
            path: "/boot/initramfs-linux.img".into(),
            kind: Kind::Initramfs,
            kernel: "7.2.13-arch1-1".parse().unwrap(),
            preset: Some("linux".into()),
        };
        fs::create_dir(root.path().join("boot")).unwrap();
        fs::write(image.below(root.path()), content).unwrap();
        (root, machine, image)
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let (_root, machine, image) = test_machine("old");
        let mut note = Note::default();
        note.add(&machine, &image);
        let ours = Ours::read(&machine, &image.kernel);
        note.objects.insert(image.kernel.clone(), ours.digest());
        note.write(&machine).unwrap();
        let read = Note::read(&machine);
        assert_eq!(read, note);
        assert!(read.is_of(&image.kernel, &ours));
        assert!(!Note::default().is_of(&image.kernel, &ours));
        Note::forget(&machine).unwrap();
        assert_eq!(Note::read(&machine), Note::default());
        assert!(!machine.trees.images().exists());
    }

    #[test]
    fn an_image_is_another_one_once_its_content_is() {
        let (root, machine, image) = test_machine("old");
        let noted = Noted::take(&machine, &image).unwrap();
        assert!(noted.is_same(&image, root.path()));
        fs::write(image.below(root.path()), "old").unwrap();
        assert!(noted.is_same(&image, root.path()));
        fs::write(image.below(root.path()), "new").unwrap();
        assert!(!noted.is_same(&image, root.path()));
        fs::remove_file(image.below(root.path())).unwrap();
        assert!(!noted.is_same(&image, root.path()));
    }

    #[test]
    fn an_image_that_was_not_there_is_noted_as_such() {
        let (root, machine, image) = test_machine("");
        fs::remove_file(image.below(root.path())).unwrap();
        let noted = Noted::take(&machine, &image).unwrap();
        assert!(noted.is_same(&image, root.path()) && noted.copy.is_none());
        fs::write(image.below(root.path()), "new").unwrap();
        assert!(!noted.is_same(&image, root.path()));
        assert!(noted.put_back(&image, root.path()).is_err());
    }

    #[test]
    fn a_copy_takes_the_place_of_what_was_spoilt() {
        let (root, machine, image) = test_machine("good");
        let noted = Noted::take(&machine, &image).unwrap();
        fs::write(image.below(root.path()), "bad").unwrap();
        noted.put_back(&image, root.path()).unwrap();
        assert_eq!(fs::read_to_string(image.below(root.path())).unwrap(), "good");
        let names = fs::read_dir(root.path().join("boot")).unwrap();
        assert_eq!(names.count(), 1, "nothing strange is left in /boot");
    }
}
