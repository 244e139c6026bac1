//! Restores images that have lost a module or are damaged, and deletes the copies of good images.

use std::io;

use dkms_engine::machine::Machine;

use crate::assess::{Assessment, ImageAssessment, KernelAssessment};
use crate::decide::CurrentImage;
use crate::generators::Generator;
use crate::image::{Contents, Image};
use crate::image_snapshot::ImageSnapshot;

impl Assessment<'_> {
    /// Restores the images of a kernel that are listed in `faults`, each with its index and the
    /// reason. Returns an error line for each image.
    ///
    /// If there is too little space for an image, also restores the other images in its directory
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
        for (index, why, line) in lack_space {
            let path = kernel.images[index].image.path.clone();
            let needed = format!("leaves too little space to restore {}", path.display());
            for it in kernel.images.iter_mut().filter(|it| !it.is_outdated) {
                let old = self.snapshot.of(&it.image);
                if it.image.path.parent() == path.parent()
                    && old.is_some_and(|old| old.has_grown(&machine.trees.root))
                {
                    let (Ok(line) | Err(line)) =
                        self.restore(machine, generator, it, &name, &needed, true);
                    errors.push(line);
                }
            }
            let it = &mut kernel.images[index];
            let again = self.restore(machine, generator, it, &name, &why, false);
            errors.push(again.unwrap_or(line));
        }
        errors
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
        let is_spoilt = !matches!(it.facts.current, CurrentImage::Holds(_));
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
