//! Reads the images of all kernels with pending work and decides what to do with each image.
//! Changes no files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dkms_engine::machine::{Kernel, Kernels, Machine};
use dkms_engine::names::KernelRelease;

use crate::decide::{CurrentImage, Decision, EarlierImage, ImageFacts, decide};
use crate::generators::{Generator, GeneratorCommand};
use crate::image::Image;
use crate::image_snapshot::ImageSnapshot;
use crate::managed_modules::ManagedModules;
use crate::mount_table::unmounted_above;
use crate::needed_modules::needed_modules;
use crate::obstacle::{not_mounted, obstacle, unmounted_boot_dir};
use crate::pending::PendingImages;
use crate::snapshot::{Snapshot, is_wanted};

/// An image, the facts about it, and the action to take on it.
#[derive(Debug)]
pub(crate) struct ImageAssessment {
    pub(crate) image: Image,
    pub(crate) facts: ImageFacts,
    pub(crate) decision: Decision,
    /// Whether the image is still stale after the decisions have been carried out.
    pub(crate) is_outdated: bool,
}

/// A kernel with pending images, and the assessment of each image.
#[derive(Debug)]
pub(crate) struct KernelAssessment {
    pub(crate) kernel: Kernel,
    pub(crate) images: Vec<ImageAssessment>,
    pub(crate) modules: ManagedModules,
    /// The mount point of a file system in fstab that is not mounted, and that contains an image.
    /// If no image is found, a mount point that may contain the images.
    pub(crate) unmounted: Option<PathBuf>,
}

/// All kernels with pending images, and the facts used to assess them.
#[derive(Debug)]
pub(crate) struct Assessment<'a> {
    pub(crate) kernels: Vec<KernelAssessment>,
    pub(crate) generator: Option<&'a Generator>,
    pub(crate) pending: PendingImages,
    pub(crate) snapshot: Snapshot,
    /// The releases of all installed kernels.
    pub(crate) installed: BTreeSet<KernelRelease>,
}

impl ImageAssessment {
    pub(crate) fn is_unchecked(&self) -> bool {
        matches!(self.decision, Decision::Unchecked(_))
    }
}

impl KernelAssessment {
    /// Returns the kernel's release and package, as in `7.2.13-arch1-1 (linux)`.
    pub(crate) fn name(&self) -> String {
        match &self.kernel.package {
            Some(package) => format!("{} ({package})", self.kernel.release),
            None => self.kernel.release.to_string(),
        }
    }

    /// Returns the reason why the kernel's images cannot be found. Returns `None` if they can be
    /// found, or if the kernel has none.
    pub(crate) fn hidden(&self) -> Option<String> {
        self.unmounted.as_deref().filter(|_| self.images.is_empty()).map(not_mounted)
    }

    /// Returns the command that regenerates the stale images. If the images' file system is not
    /// mounted, the command mounts it first.
    pub(crate) fn remedy(&self) -> String {
        let command = "dkms initramfs";
        match &self.unmounted {
            Some(dir) => format!("mount {} && {command}", dir.display()),
            None => command.to_owned(),
        }
    }

    /// Returns true if no image of the kernel needs an action.
    pub(crate) fn is_up_to_date(&self) -> bool {
        self.hidden().is_none() && self.images.iter().all(|it| it.decision == Decision::UpToDate)
    }

    fn stale_images(&self) -> Vec<&Image> {
        let is_stale = |it: &&ImageAssessment| matches!(it.decision, Decision::Regenerate(_));
        self.images.iter().filter(is_stale).map(|it| &it.image).collect()
    }
}

impl<'a> Assessment<'a> {
    /// Reads the pending work and assesses the images of every kernel with pending work or vanished
    /// images. Without a `generator`, assesses no images.
    pub(crate) fn read(machine: &Machine, generator: Option<&'a Generator>) -> Self {
        let kernels = Kernels::read(&machine.trees).map_err(|error| log::warn!("{error}"));
        let alive: Vec<Kernel> = kernels.map(|kernels| kernels.all).unwrap_or_default();
        let alive: Vec<Kernel> = alive.into_iter().filter(|kernel| kernel.alive).collect();
        let mut assessment = Self {
            kernels: Vec::new(),
            generator,
            pending: PendingImages::read(machine),
            snapshot: Snapshot::read(machine),
            installed: alive.iter().map(|kernel| kernel.release.clone()).collect(),
        };
        let Some(generator) = generator else { return assessment };
        for kernel in alive {
            let root = &machine.trees.root;
            let is_pending = assessment.pending.contains(&kernel.release);
            let mut vanished = assessment.snapshot.vanished(&kernel, root);
            // Checked first, because listing the images may start bash.
            if vanished.is_empty() && !is_pending {
                continue;
            }
            let mut images = generator.images(machine, &kernel);
            vanished.retain(|old| is_wanted(old, &images));
            if vanished.is_empty() && !is_pending {
                continue;
            }
            let modules = ManagedModules::read(machine, &kernel.release);
            let is_listed = |old: &Image| images.iter().any(|it| it.path == old.path);
            let vanished: Vec<Image> = vanished.into_iter().filter(|old| !is_listed(old)).collect();
            images.extend(vanished);
            let assess =
                |image| assessment.assess_image(machine, generator, &kernel, &modules, image);
            let images: Vec<_> = images.into_iter().map(assess).collect();
            let unmounted = match images.as_slice() {
                [] => unmounted_boot_dir(machine),
                found => found.iter().find_map(|it| unmounted_above(root, &it.image.path)),
            };
            assessment.kernels.push(KernelAssessment { kernel, images, modules, unmounted });
        }
        assessment
    }

    fn assess_image(
        &self,
        machine: &Machine,
        generator: &Generator,
        kernel: &Kernel,
        modules: &ManagedModules,
        image: Image,
    ) -> ImageAssessment {
        let root = &machine.trees.root;
        let snapshot = self.snapshot.of(&image);
        let current = match snapshot {
            Some(old) if old.contents.is_some() && old.is_untouched(root) => {
                CurrentImage::Holds(old.contents.clone().unwrap_or_default())
            }
            _ => inspect(generator, &image.below(root)),
        };
        // If the objects have changed since the snapshot, an image that was regenerated in between
        // may contain the old objects. The snapshot is then of no use.
        let has_objects = self.snapshot.has_objects(&kernel.release, modules);
        let earlier = has_objects.then(|| earlier(snapshot, root));
        let held = current.contents().map_or_else(BTreeSet::new, |it| it.modules.clone());
        let facts = ImageFacts {
            kernel: kernel.release.clone(),
            installed: self.installed.clone(),
            // The path is only a guess if the generator is unknown; the image may have another one.
            existed: generator.is_unknown() || snapshot.is_some_and(|old| old.existed),
            changed: self.pending.changed_modules(&kernel.release),
            placed: modules.placed.clone(),
            failed: modules.failed.keys().cloned().collect(),
            configured: needed_modules(machine, generator, kernel, &image, &held),
            earlier,
            current,
        };
        let mut decision = decide(&facts);
        if let Some(dir) = unmounted_above(root, &image.path) {
            // The image that boots is on the unmounted file system, not here.
            decision = match facts.may_need_change() {
                true => Decision::Keep(not_mounted(&dir)),
                false => Decision::Unchecked(not_mounted(&dir)),
            };
        }
        let is_damaged = matches!(facts.current, CurrentImage::Unreadable(_));
        let has_copy = snapshot.is_some_and(|old| old.copy.is_some());
        if let Decision::Regenerate(why) = &decision
            && let Some(obstacle) = obstacle(machine, generator, &image, is_damaged && !has_copy)
        {
            decision = match obstacle.allows_restoring && is_damaged && has_copy {
                // The generator probably ran out of space earlier and damaged the image.
                true => Decision::Restore(obstacle.why),
                false => Decision::Keep(format!("{} ({why})", obstacle.why)),
            };
        }
        ImageAssessment { image, facts, decision, is_outdated: false }
    }

    /// Returns the commands that regenerate the stale images.
    pub(crate) fn commands(&self, machine: &Machine) -> Vec<GeneratorCommand> {
        let Some(generator) = self.generator else { return Vec::new() };
        let of = |kernel: &KernelAssessment| match &kernel.stale_images()[..] {
            [] => Vec::new(),
            stale => generator.commands(machine, &kernel.kernel, stale),
        };
        self.kernels.iter().flat_map(of).collect()
    }

    /// Clears the pending work of every kernel that is not installed or whose images are up to
    /// date.
    pub(crate) fn clear_up_to_date(&self, machine: &Machine) {
        for release in self.pending.kernels() {
            let kernel = self.kernels.iter().find(|it| it.kernel.release == *release);
            if kernel.is_none_or(KernelAssessment::is_up_to_date) {
                self.pending.clear(machine, release);
            }
        }
    }
}

/// Compares an image with its recorded state. An image without a record counts as new.
pub(crate) fn earlier(snapshot: Option<&ImageSnapshot>, root: &Path) -> EarlierImage {
    EarlierImage {
        unchanged: snapshot.is_some_and(|old| old.is_same(root)),
        shrunk: snapshot.is_some_and(|old| old.has_shrunk(root)),
        contents: snapshot.and_then(|old| old.contents.clone()),
    }
}

/// Returns the current state of the image in `file`, as listed by the generator's own program.
pub(crate) fn inspect(generator: &Generator, file: &Path) -> CurrentImage {
    if !file.exists() {
        return CurrentImage::Missing;
    }
    match generator.list(file) {
        Ok(contents) => CurrentImage::Holds(contents),
        Err(why) => CurrentImage::Unreadable(why),
    }
}
