//! Restores images that have lost a module or are damaged, and deletes the copies of good images.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dkms_engine::machine::Machine;
use dkms_engine::os::durable;

use crate::assess::{Assessment, ImageAssessment, KernelAssessment};
use crate::decide::CurrentImage;
use crate::generators::Generator;
use crate::image::{Contents, Image};
use crate::image_snapshot::ImageSnapshot;

impl Assessment<'_> {
    /// Restores the images of a kernel that are listed in `faults`, each with its index and the
    /// reason. Returns an error line for each image.
    ///
    /// If there is too little space for an image, first restores other images on its file system
    /// that have grown since they were copied, because the previous images all fitted.
    pub(crate) fn restore_all(
        &self,
        machine: &Machine,
        generator: &Generator,
        kernel: &mut KernelAssessment,
        faults: Vec<(usize, String)>,
    ) -> Vec<String> {
        let name = kernel.name();
        let mut errors = Vec::new();
        let mut lack_space = Vec::new();
        for (index, why) in faults {
            match self.restore(machine, generator, &mut kernel.images[index], &name, &why, false) {
                Ok(line) => errors.push(line),
                Err(line) => lack_space.push((index, why, line)),
            }
        }
        // Images that cannot be read come first, because readable ones may occupy their space.
        lack_space
            .sort_by_key(|(index, ..)| kernel.images[*index].facts.current.contents().is_some());
        while !lack_space.is_empty() {
            let (index, why, line) = lack_space.remove(0);
            let path = kernel.images[index].image.path.display();
            let in_the_way = format!("leaves too little space to restore {path}");
            for other in self.in_the_way(machine, kernel, index) {
                let faulty = lack_space.iter().position(|(index, ..)| *index == other);
                let why = faulty.map_or(in_the_way.clone(), |at| lack_space.remove(at).1);
                let it = &mut kernel.images[other];
                let (Ok(line) | Err(line)) =
                    self.restore(machine, generator, it, &name, &why, true);
                errors.push(line);
            }
            let it = &mut kernel.images[index];
            let again = self.restore(machine, generator, it, &name, &why, false);
            errors.push(again.unwrap_or(line));
        }
        errors
    }

    /// Returns the indexes of the fewest images to restore first so that the image at `index` can
    /// be restored. Each is on the same file system and larger than its copy. Returns an empty list
    /// if none is needed, or if all of them would not free enough space.
    fn in_the_way(&self, machine: &Machine, kernel: &KernelAssessment, index: usize) -> Vec<usize> {
        let root = &machine.trees.root;
        let dir = |image: &Image| image.below(root).parent().map(Path::to_owned);
        let device = |image: &Image| Some(dir(image)?.metadata().ok()?.dev());
        let copy_size = |image: &Image| self.snapshot.of(image).map_or(0, ImageSnapshot::copy_size);
        let ImageAssessment { image, facts, .. } = &kernel.images[index];
        // Only an image that cannot be read may be overwritten in place.
        let own = if facts.current.contents().is_none() { image.size(root) } else { 0 };
        let free = dir(image).and_then(|dir| durable::free_space(&dir)).unwrap_or(0);
        let mut missing = copy_size(image).saturating_sub(free + own);
        let mut grown: Vec<(u64, usize)> = Vec::new();
        for (other, it) in kernel.images.iter().enumerate() {
            let (size, copied) = (it.image.size(root), copy_size(&it.image));
            let is_beside = other != index && device(&it.image) == device(image);
            if is_beside && copied > 0 && size > copied {
                grown.push((size - copied, other));
            }
        }
        grown.sort_unstable();
        let mut first = Vec::new();
        while missing > 0 {
            let Some((growth, other)) = grown.pop() else { return Vec::new() };
            missing = missing.saturating_sub(growth);
            first.push(other);
        }
        first
    }

    /// Restores an image from its copy if the image has changed and the copy is an image of the
    /// same kernel. Returns an error line with the reason `why` and the outcome.
    ///
    /// A readable image is overwritten in place only if `may_overwrite` is true.
    ///
    /// # Errors
    /// The same line, if the image was not restored because the disk is full.
    fn restore(
        &self,
        machine: &Machine,
        generator: &Generator,
        it: &mut ImageAssessment,
        name: &str,
        why: &str,
        may_overwrite: bool,
    ) -> Result<String, String> {
        it.is_outdated = true;
        let root = &machine.trees.root;
        let path = it.image.path.display();
        let error = format!("error: {name}: {path}: {why}");
        let old = self.snapshot.of(&it.image);
        if it.facts.current != CurrentImage::Missing && old.is_some_and(|old| old.is_same(root)) {
            return Ok(not_regenerated(name, &it.image, why));
        }
        let Some(old) = old.filter(|old| old.copy.is_some()) else {
            return Ok(format!("{error}; no copy to restore"));
        };
        let contents = contents(generator, old);
        if contents.as_ref().is_some_and(|copy| !copy.is_for(&it.facts.kernel)) {
            return Ok(format!("{error}; not restored: the previous image is for another kernel"));
        }
        let is_spoilt = it.facts.current.contents().is_none();
        match old.restore(root, is_spoilt || may_overwrite) {
            Ok(()) => {
                it.facts.current = CurrentImage::Holds(contents.unwrap_or_default());
                Ok(format!("{error}; restored the previous image"))
            }
            Err(failure) => {
                let line = format!("{error}; cannot restore the previous image: {failure}");
                let is_full = failure.kind() == io::ErrorKind::StorageFull;
                if is_full { Err(line) } else { Ok(line) }
            }
        }
    }

    /// Deletes the copy of each image of a kernel if the image is good or has not changed. If none
    /// of the kernel's images is pending any more (`is_done`), deletes all copies and forgets the
    /// kernel.
    pub(crate) fn delete_needless_copies(
        &mut self,
        machine: &Machine,
        kernel: &KernelAssessment,
        is_done: bool,
    ) {
        let root = &machine.trees.root;
        for it in &kernel.images {
            let is_same = || self.snapshot.of(&it.image).is_some_and(|old| old.is_same(root));
            if is_done || !it.is_outdated || is_same() {
                self.snapshot.delete_copy(&it.image);
            }
        }
        if is_done {
            let images = kernel.images.iter().map(|it| &it.image);
            self.snapshot.forget(&kernel.kernel.release, images);
        }
    }
}

/// Returns the error line for an image that is left as it was. `name` is the name of its kernel.
pub(crate) fn not_regenerated(name: &str, image: &Image, why: &str) -> String {
    format!("error: {name}: {}: not regenerated: {why}", image.path.display())
}

/// Returns the contents of an image's copy; `None` if they are unknown. The copy may be newer than
/// the recorded state of the image.
fn contents(generator: &Generator, old: &ImageSnapshot) -> Option<Contents> {
    let listed = generator.list(old.copy.as_ref()?).ok();
    listed.or_else(|| old.contents.clone())
}
