//! The snapshot: the state of the images before other packages' hooks regenerate them.
//!
//! The copies of images are kept in the dkms tree and never in /boot: /boot is often small, and
//! boot loaders list the files in it. Other users cannot read the copies, since an image may
//! contain keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Kernels, Machine};
use dkms_engine::names::KernelRelease;
use dkms_engine::os::digest::Digest;
use dkms_engine::os::durable::{self, FileError};
use serde::{Deserialize, Serialize};

use crate::generators::Generator;
use crate::image::{Contents, Image, KmodName};
use crate::image_snapshot::{ImageSnapshot, create_closed_dir};
use crate::managed_modules::ManagedModules;
use crate::mount_table::unmounted_above;
use crate::needed_modules::needed_modules;
use crate::pending::PendingImages;

/// The format of the snapshot file. A file with another number is ignored.
const FORMAT: u32 = 1;

/// The recorded state of the images of one or more kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    format: u32,
    /// The digest of each kernel's installed objects when its images were recorded.
    #[serde(default)]
    objects: BTreeMap<KernelRelease, Digest>,
    #[serde(default)]
    images: Vec<ImageSnapshot>,
}

/// Records which images exist before another package's hook can remove them.
///
/// mkinitcpio removes a kernel's images before the kernel is upgraded. Without this record, a
/// missing image would count as one that never existed, and would not be generated.
///
/// # Errors
/// [`FileError`] if the kernels cannot be read or the snapshot cannot be written.
pub fn note_existing_images(machine: &Machine, generator: &Generator) -> Result<(), FileError> {
    let mut snapshot = Snapshot::read(machine);
    for kernel in Kernels::read(&machine.trees)?.all.iter().filter(|kernel| kernel.alive) {
        let images = generator.images(machine, kernel);
        for image in images.iter().filter(|it| it.below(&machine.trees.root).exists()) {
            snapshot.note_existing(image);
        }
    }
    if snapshot.images.is_empty() { Ok(()) } else { snapshot.write(machine) }
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
    let mut snapshot = Snapshot::read(machine);
    for kernel in Kernels::read(&machine.trees)?.all.iter().filter(|kernel| kernel.alive) {
        if pending.contains(&kernel.release) {
            let changed = pending.changed_modules(&kernel.release);
            snapshot.record(machine, generator, kernel, &changed);
        }
    }
    snapshot.write(machine)
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { format: FORMAT, objects: BTreeMap::new(), images: Vec::new() }
    }
}

impl Snapshot {
    /// Records the images of a kernel whose modules have changed, and copies those that contain or
    /// need a module in `changed`.
    ///
    /// Keeps the previous record of an image if the kernel's objects have not changed since: that
    /// record was made before any regeneration. If the image is now broken, because a generator
    /// was killed while it was writing the image, also keeps a previous record that has a copy.
    fn record(
        &mut self,
        machine: &Machine,
        generator: &Generator,
        kernel: &Kernel,
        changed: &BTreeSet<KmodName>,
    ) {
        let root = &machine.trees.root;
        let modules = ManagedModules::read(machine, &kernel.release);
        let has_same_objects = self.has_objects(&kernel.release, &modules);
        let images = generator.images(machine, kernel);
        // Nothing is known about an image whose file system is not mounted.
        if images.iter().any(|image| unmounted_above(root, &image.path).is_some()) {
            self.objects.remove(&kernel.release);
            return;
        }
        self.objects.insert(kernel.release.clone(), modules.digest());
        for image in images {
            let old = self.of(&image).filter(|old| old.is_recorded());
            // Checked first, because listing an image takes long and two hooks of a transaction
            // call this.
            if old.is_some() && has_same_objects {
                continue;
            }
            let contents = contents(generator, &image.below(root));
            let is_broken = contents.is_none() && !generator.is_unknown();
            if is_broken && old.is_some_and(|it| it.copy.is_some()) {
                continue;
            }
            let held = contents.as_ref().map(|it| it.modules.clone());
            let needs_copy = held.is_none_or(|held| {
                let needed = needed_modules(machine, generator, kernel, &image, &held);
                let is_needed =
                    |name: &KmodName| needed.as_ref().is_none_or(|it| it.contains_key(name));
                changed.iter().any(|name| held.contains(name) || is_needed(name))
            });
            let copied = self.add(machine, &image, contents, needs_copy);
            // With `precise`, only our own hook regenerates the image, and reports it if it cannot.
            if let Err(why) = copied
                && !machine.settings.initramfs.precise
            {
                log::warn!("{why}");
            }
        }
    }

    /// Records the current state of an image that contains `contents`, replacing any earlier
    /// record.
    ///
    /// # Errors
    /// The reason why there is no copy although the image needs one.
    pub(crate) fn add(
        &mut self,
        machine: &Machine,
        image: &Image,
        contents: Option<Contents>,
        needs_copy: bool,
    ) -> Result<(), String> {
        let root = &machine.trees.root;
        let mut new = ImageSnapshot::of(image, root, contents);
        if let Some(old) = self.of(image) {
            new.existed |= old.existed;
            new.copy.clone_from(&old.copy);
        }
        let copied = if needs_copy { new.copy_to(&machine.trees.images(), root) } else { Ok(()) };
        self.images.retain(|old| old.image.path != image.path);
        self.images.push(new);
        copied
    }

    /// Copies an image in its current state, and keeps the record of its earlier state.
    ///
    /// # Errors
    /// The reason why there is no copy.
    pub(crate) fn copy(&mut self, machine: &Machine, image: &Image) -> Result<(), String> {
        match self.images.iter_mut().find(|old| old.image.path == image.path) {
            Some(old) => old.copy_to(&machine.trees.images(), &machine.trees.root),
            None => Ok(()),
        }
    }

    fn note_existing(&mut self, image: &Image) {
        match self.images.iter_mut().find(|old| old.image.path == image.path) {
            Some(old) => old.existed = true,
            None => self.images.push(ImageSnapshot::existing(image)),
        }
    }

    /// Returns true if the installed objects of `kernel`, listed in `modules`, are the same as when
    /// its images were recorded.
    pub(crate) fn has_objects(&self, kernel: &KernelRelease, modules: &ManagedModules) -> bool {
        self.objects.get(kernel) == Some(&modules.digest())
    }

    /// Returns the recorded state of an image; `None` if the image is not in the snapshot.
    pub(crate) fn of(&self, image: &Image) -> Option<&ImageSnapshot> {
        self.images.iter().find(|old| old.image.path == image.path)
    }

    /// Returns the images that existed and are missing now: those of `kernel`, and those of the
    /// kernel that it replaced in an upgrade.
    ///
    /// mkinitcpio's hook removes the images of a kernel that is upgraded, and kernel-install's
    /// hooks remove all images. Perhaps no other hook has generated them again. An image may
    /// also be missing on purpose; see [`is_wanted`].
    pub(crate) fn vanished(&self, kernel: &Kernel, root: &Path) -> Vec<Image> {
        let existed = self.images.iter().filter(|old| old.existed).map(|old| &old.image);
        let is_upgrade = |image: &Image| image.preset.is_some() && image.preset == kernel.pkgbase;
        let of_kernel = existed.filter(|it| it.kernel == kernel.release || is_upgrade(it));
        let missing = of_kernel.filter(|image| !image.below(root).exists());
        missing.map(|image| Image { kernel: kernel.release.clone(), ..image.clone() }).collect()
    }

    /// Returns the paths of the images in the snapshot, as on the machine that boots them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(|old| old.image.path.as_path())
    }

    /// Deletes the copy of an image. Logs a warning if the file cannot be removed.
    pub(crate) fn delete_copy(&mut self, image: &Image) {
        if let Some(old) = self.images.iter_mut().find(|old| old.image.path == image.path)
            && let Err(error) = old.delete_copy()
        {
            log::warn!("{error}");
        }
    }

    /// Forgets the objects and the images of a kernel. The caller must delete the images' copies
    /// first.
    pub(crate) fn forget<'i>(
        &mut self,
        kernel: &KernelRelease,
        images: impl Iterator<Item = &'i Image>,
    ) {
        self.objects.remove(kernel);
        let images: Vec<&Image> = images.collect();
        self.images.retain(|old| images.iter().all(|image| image.path != old.image.path));
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

    /// Reads the snapshot from the dkms tree. Returns an empty snapshot if the snapshot file does
    /// not exist, is malformed or has another format.
    pub(crate) fn read(machine: &Machine) -> Self {
        let Ok(text) = fs::read_to_string(file(machine)) else { return Self::default() };
        match toml::from_str::<Self>(&text) {
            Ok(Self { format, .. }) if format != FORMAT => {
                log::warn!("{}: ignored: unsupported format {format}", file(machine).display());
                Self::default()
            }
            Ok(mut snapshot) => {
                snapshot.images.iter_mut().for_each(ImageSnapshot::forget_missing_copy);
                snapshot
            }
            Err(error) => {
                log::warn!("{}: ignored: {error}", file(machine).display());
                Self::default()
            }
        }
    }

    /// Deletes the snapshot and its copies.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be removed.
    pub(crate) fn delete(machine: &Machine) -> Result<(), FileError> {
        durable::remove_tree(&machine.trees.images()).map(|_| ())
    }
}

/// Returns true unless the preset of a vanished image no longer names it. `listed` are the images
/// that its kernel should have according to the current settings.
pub(crate) fn is_wanted(image: &Image, listed: &[Image]) -> bool {
    let mut of_preset = listed.iter().filter(|it| it.preset == image.preset).peekable();
    image.preset.is_none()
        || of_preset.peek().is_none()
        || of_preset.any(|it| it.path == image.path)
}

/// Returns the contents of an image; `None` if the image cannot be listed or its generator is
/// unknown.
fn contents(generator: &Generator, file: &Path) -> Option<Contents> {
    generator.list(file).ok().filter(|_| !generator.is_unknown())
}

fn file(machine: &Machine) -> PathBuf {
    machine.trees.images().join("snapshot.toml")
}

#[cfg(test)]
mod tests;
