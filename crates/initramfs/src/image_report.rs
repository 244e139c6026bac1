//! The report on a stale image, with the same facts in hooks, commands and JSON.

use std::fmt;
use std::path::{Path, PathBuf};

use dkms_engine::machine::Machine;
use serde::Serialize;

use crate::assess::{Assessment, ImageAssessment, KernelAssessment};
use crate::decide::Decision;
use crate::generators::{Generator, GeneratorCommand};
use crate::image::{Contents, KmodName};

/// A stale image, or a kernel whose images cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageReport {
    /// The kernel's release and package, as in `7.2.13-arch1-1 (linux)`.
    kernel: String,
    /// The path of the image; `None` if the images cannot be found.
    image: Option<PathBuf>,
    /// A short description of the problem.
    problem: &'static str,
    why: String,
    /// The installed dkms modules that the image contains.
    holds: Vec<String>,
    /// The installed dkms modules that the image needs and does not contain.
    lacks: Vec<String>,
    /// The commands that regenerate the image. Empty if it cannot be regenerated now.
    commands: Vec<String>,
    #[serde(skip)]
    remedy: String,
}

impl fmt::Display for ImageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kernel)?;
        if let Some(image) = &self.image {
            write!(f, "{}: ", image.display())?;
        }
        write!(f, "{}: {}", self.problem, self.why)?;
        let (holds, lacks) = (self.holds.join(", "), self.lacks.join(", "));
        match (holds.as_str(), lacks.as_str()) {
            ("", "") => Ok(()),
            (holds, "") => write!(f, "; holds {holds}"),
            ("", lacks) => write!(f, "; lacks {lacks}"),
            (holds, lacks) => write!(f, "; holds {holds}; lacks {lacks}"),
        }
    }
}

impl ImageReport {
    /// Returns the path of the image; `None` if the images cannot be found.
    #[must_use]
    pub fn image(&self) -> Option<&Path> {
        self.image.as_deref()
    }

    /// Returns the command that regenerates the image once nothing prevents it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

/// Returns a report on each pending image that is not up to date. Changes nothing.
#[must_use]
pub fn stale_images(machine: &Machine, generator: &Generator) -> Vec<ImageReport> {
    Assessment::read(machine, Some(generator)).reports(machine)
}

impl Assessment<'_> {
    /// Returns a report on each image that is not up to date.
    pub(crate) fn reports(&self, machine: &Machine) -> Vec<ImageReport> {
        let Some(generator) = self.generator else { return Vec::new() };
        let of = |kernel: &KernelAssessment| {
            let hidden = kernel.hidden().map(|why| kernel.hidden_report(&why));
            let images = kernel.images.iter().filter_map(|it| {
                let mut report = kernel.report(it)?;
                if let Decision::Regenerate(_) = it.decision {
                    let commands = generator.commands(machine, &kernel.kernel, &[&it.image]);
                    report.commands = commands.iter().map(GeneratorCommand::line).collect();
                }
                Some(report)
            });
            hidden.into_iter().chain(images).collect::<Vec<_>>()
        };
        self.kernels.iter().flat_map(of).collect()
    }
}

impl KernelAssessment {
    /// Returns the report on an image, without the commands. Returns `None` if the image is up to
    /// date.
    pub(crate) fn report(&self, it: &ImageAssessment) -> Option<ImageReport> {
        let (problem, why) = match &it.decision {
            Decision::UpToDate => return None,
            Decision::Regenerate(why) => ("needs to be regenerated", why),
            Decision::Keep(why) => ("not regenerated", why),
            Decision::Unchecked(why) => ("not checked", why),
            Decision::Restore(why) => ("the previous image needs to be restored", why),
        };
        let (placed, needed) = (&it.facts.placed, it.facts.configured.as_ref());
        let is_needed = |name: &KmodName| needed.is_some_and(|needed| needed.contains_key(name));
        let text = |name: &KmodName| name.as_str().to_owned();
        // Nothing is known about an image that cannot be listed.
        let (holds, lacks) = match it.facts.current.contents() {
            Some(Contents { modules: held, .. }) => {
                let lacks = placed.difference(held).filter(|name| is_needed(name));
                (placed.intersection(held).map(text).collect(), lacks.map(text).collect())
            }
            None => (Vec::new(), Vec::new()),
        };
        Some(ImageReport {
            kernel: self.name(),
            image: Some(it.image.path.clone()),
            problem,
            why: why.clone(),
            holds,
            lacks,
            commands: Vec::new(),
            remedy: self.remedy(),
        })
    }

    /// Returns the report on a kernel whose images cannot be found.
    pub(crate) fn hidden_report(&self, why: &str) -> ImageReport {
        ImageReport {
            kernel: self.name(),
            image: None,
            problem: "no images found",
            why: why.to_owned(),
            holds: Vec::new(),
            lacks: Vec::new(),
            commands: Vec::new(),
            remedy: self.remedy(),
        }
    }
}
