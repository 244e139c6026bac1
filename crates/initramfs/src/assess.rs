//! Reads the images of all kernels with pending work and decides what to do with each image.
//! Changes no files.

use std::collections::BTreeSet;
use std::path::Path;

use dkms_engine::machine::{Kernel, Kernels, Machine};
use dkms_engine::names::KernelRelease;

use crate::decide::{CurrentImage, Decision, EarlierImage, ImageFacts, decide};
use crate::generators::{Generator, GeneratorCommand};
use crate::image::Image;
use crate::implied_modules;
use crate::managed_modules::ManagedModules;
use crate::pending::PendingImages;
use crate::snapshot::Snapshot;

/// An image, its current state, and the action to take on it.
#[derive(Debug)]
pub(crate) struct ImageAssessment {
    pub(crate) image: Image,
    pub(crate) current: CurrentImage,
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

impl KernelAssessment {
    /// Returns the kernel's release and package, as in `7.2.13-arch1-1 (linux)`.
    pub(crate) fn name(&self) -> String {
        match &self.kernel.pkgbase {
            Some(pkgbase) => format!("{} ({pkgbase})", self.kernel.release),
            None => self.kernel.release.to_string(),
        }
    }

    /// Returns true if no image of the kernel needs an action.
    pub(crate) fn is_up_to_date(&self) -> bool {
        self.images.iter().all(|it| it.decision == Decision::UpToDate)
    }

    fn stale_images(&self) -> Vec<&Image> {
        let is_stale = |it: &&ImageAssessment| matches!(it.decision, Decision::Regenerate(_));
        self.images.iter().filter(is_stale).map(|it| &it.image).collect()
    }
}

impl<'a> Assessment<'a> {
    /// Reads the pending work and assesses the images of every pending kernel. Without a
    /// `generator`, assesses none.
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
        for kernel in alive.into_iter().filter(|it| assessment.pending.contains(&it.release)) {
            let modules = ManagedModules::read(machine, &kernel.release);
            let images = generator.images(machine, &kernel).into_iter();
            let assess =
                |image| assessment.assess_image(machine, generator, &kernel, &modules, image);
            let images = images.map(assess).collect();
            assessment.kernels.push(KernelAssessment { kernel, images, modules });
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
        let current = inspect(generator, &image.below(root));
        // An image that was regenerated before the new objects were installed may contain the old
        // ones.
        let earlier = self.snapshot.has_objects(&kernel.release, modules).then(|| {
            // An image without a snapshot is new.
            let Some(snapshot) = self.snapshot.of(&image) else {
                return EarlierImage { unchanged: false, contents: None };
            };
            let unchanged = snapshot.is_same(&image, root);
            let contents = match &current {
                CurrentImage::Holds(contents) if unchanged => Some(contents.clone()),
                _ => snapshot.copy.as_ref().and_then(|copy| generator.list(copy).ok()),
            };
            EarlierImage { unchanged, contents }
        });
        let held = match &current {
            CurrentImage::Holds(contents) => contents.modules.clone(),
            _ => BTreeSet::new(),
        };
        let configured = generator.configured_modules(machine, kernel, &image);
        let configured = configured.map_err(|why| log::warn!("{why}")).ok();
        let configured = configured.map(|mut configured| {
            configured.extend(implied_modules::soft_dependencies(machine, &held));
            configured.extend(implied_modules::root_file_system(machine));
            configured
        });
        let facts = ImageFacts {
            kernel: kernel.release.clone(),
            installed: self.installed.clone(),
            changed: self.pending.changed_modules(&kernel.release),
            placed: modules.placed.clone(),
            failed: modules.failed.keys().cloned().collect(),
            configured,
            earlier,
            current,
        };
        let decision = decide(&facts);
        ImageAssessment { image, current: facts.current, decision, is_outdated: false }
    }

    /// Returns a line of output for each image that is not up to date.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |kernel: &KernelAssessment, it: &ImageAssessment| {
            let (problem, why) = match &it.decision {
                Decision::UpToDate => return None,
                Decision::Regenerate(why) => ("needs to be regenerated", why),
                Decision::Keep(why) => ("left unchanged", why),
                Decision::Restore(why) => ("the previous image needs to be restored", why),
            };
            Some(format!("{}: {}: {problem}: {why}", kernel.name(), it.image.path.display()))
        };
        let of = |kernel: &KernelAssessment| -> Vec<String> {
            kernel.images.iter().filter_map(|it| line(kernel, it)).collect()
        };
        self.kernels.iter().flat_map(of).collect()
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
