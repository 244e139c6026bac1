//! What is owed to the images of each kernel, and what is to be done about it. Reading it changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use dkms_engine::machine::{Kernel, Kernels, Machine};
use dkms_engine::names::KernelRelease;

use crate::decide::{Before, Case, Decision, Now, decide};
use crate::generators::Generator;
use crate::generators::command::Call;
use crate::image::Image;
use crate::implied_modules;
use crate::pending::{Ours, Owed};
use crate::snapshot::Note;

/// One kernel whose images are looked at.
#[derive(Debug)]
pub struct Account {
    /// The kernel.
    pub kernel: Kernel,
    /// Its images.
    pub images: Vec<Seen>,
    pub(crate) ours: Ours,
}

/// One image as it was found.
#[derive(Debug)]
pub struct Seen {
    /// Which one.
    pub image: Image,
    /// What is in it.
    pub now: Now,
    /// What is to be done about it.
    pub decision: Decision,
    /// Whether it had to stay, or to be put back, as it was before the modules changed.
    pub(crate) is_behind: bool,
}

/// What is owed, and to whom.
#[derive(Debug)]
pub struct Accounts {
    /// The kernels that something is owed to, in the order of their names.
    pub all: Vec<Account>,
    pub(crate) generator: Option<Generator>,
    pub(crate) owed: Owed,
    pub(crate) note: Note,
    pub(crate) installed: BTreeSet<KernelRelease>,
}

impl Account {
    /// The kernel with its package: `7.2.13-arch1-1 (linux)`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kernel.pkgbase {
            Some(pkgbase) => format!("{} ({pkgbase})", self.kernel.release),
            None => self.kernel.release.to_string(),
        }
    }

    /// The images that are to be regenerated, each with the reason.
    #[must_use]
    pub fn stale(&self) -> Vec<(&Image, &str)> {
        let stale = self.images.iter().filter_map(|seen| match &seen.decision {
            Decision::Regenerate(why) => Some((&seen.image, why.as_str())),
            _ => None,
        });
        stale.collect()
    }

    /// Whether nothing has to be done about its images.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.images.iter().all(|seen| seen.decision == Decision::Fine)
    }
}

impl Accounts {
    /// Reads what is owed and looks at the images concerned.
    #[must_use]
    pub fn read(machine: &Machine) -> Self {
        let kernels = Kernels::read(&machine.trees).map_err(|error| log::warn!("{error}"));
        let alive: Vec<Kernel> = kernels.map(|kernels| kernels.all).unwrap_or_default();
        let alive: Vec<Kernel> = alive.into_iter().filter(|kernel| kernel.alive).collect();
        let mut accounts = Self {
            all: Vec::new(),
            generator: Generator::of(machine),
            owed: Owed::read(machine),
            note: Note::read(machine),
            installed: alive.iter().map(|kernel| kernel.release.clone()).collect(),
        };
        let Some(generator) = accounts.generator else { return accounts };
        for kernel in alive.into_iter().filter(|kernel| accounts.owed.is_to(&kernel.release)) {
            let ours = Ours::read(machine, &kernel.release);
            let images = generator.images(machine, &kernel).into_iter();
            let images =
                images.map(|image| accounts.see(machine, generator, &kernel, &ours, image));
            let images = images.collect();
            accounts.all.push(Account { kernel, images, ours });
        }
        accounts
    }

    /// Looks at one image.
    fn see(
        &self,
        machine: &Machine,
        generator: Generator,
        kernel: &Kernel,
        ours: &Ours,
        image: Image,
    ) -> Seen {
        let root = &machine.trees.root;
        let now = look(generator, &image.below(root));
        // What was regenerated before the objects were placed may hold the old ones.
        let before = self.note.is_of(&kernel.release, ours).then(|| {
            // One that was not there then is new.
            let Some(noted) = self.note.of(&image) else {
                return Before { same: false, contents: None };
            };
            let same = noted.is_same(&image, root);
            let contents = match &now {
                Now::Holds(contents) if same => Some(contents.clone()),
                _ => noted.copy.as_ref().and_then(|copy| generator.list(copy).ok()),
            };
            Before { same, contents }
        });
        let held = match &now {
            Now::Holds(contents) => contents.modules.clone(),
            _ => BTreeSet::new(),
        };
        let wanted =
            generator.wanted(machine, kernel, &image).map_err(|why| log::warn!("{why}")).ok();
        let wanted = wanted.map(|mut wanted| {
            wanted.extend(implied_modules::soft_dependencies(machine, &held));
            wanted.extend(implied_modules::root_file_system(machine));
            wanted
        });
        let case = Case {
            kernel: kernel.release.clone(),
            installed: self.installed.clone(),
            changed: self.owed.changed(&kernel.release),
            placed: ours.placed.clone(),
            failed: ours.failed.keys().cloned().collect(),
            wanted,
            before,
            now,
        };
        let decision = decide(&case);
        Seen { image, now: case.now, decision, is_behind: false }
    }

    /// What is owed in words, one line for each image that is not as it should be.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |account: &Account, seen: &Seen| {
            let (name, path) = (account.name(), seen.image.path.display());
            match &seen.decision {
                Decision::Fine => None,
                Decision::Regenerate(why) => {
                    Some(format!("{name}: {path} is to be regenerated: {why}"))
                }
                Decision::Keep(why) => Some(format!("{name}: {path} stays as it is: {why}")),
                Decision::PutBack(why) => {
                    Some(format!("{name}: {path} is to be put back as it was: {why}"))
                }
            }
        };
        let of = |account: &Account| -> Vec<String> {
            account.images.iter().filter_map(|seen| line(account, seen)).collect()
        };
        self.all.iter().flat_map(of).collect()
    }

    /// The commands that pay what is owed.
    #[must_use]
    pub fn calls(&self, machine: &Machine) -> Vec<Call> {
        let Some(generator) = self.generator else { return Vec::new() };
        let of = |account: &Account| {
            let stale: Vec<&Image> = account.stale().into_iter().map(|(image, _)| image).collect();
            if stale.is_empty() {
                Vec::new()
            } else {
                generator.calls(machine, &account.kernel, &stale)
            }
        };
        self.all.iter().flat_map(of).collect()
    }

    /// Clears what is owed to kernels whose images are as they should be, or that are gone.
    pub fn clear_fine(&self, machine: &Machine) {
        for kernel in self.owed.kernels() {
            let account = self.all.iter().find(|account| account.kernel.release == *kernel);
            if account.is_none_or(Account::is_fine) {
                self.owed.clear(machine, kernel);
            }
        }
    }
}

/// Looks into an image file.
pub(crate) fn look(generator: Generator, file: &Path) -> Now {
    if !file.exists() {
        return Now::Missing;
    }
    match generator.list(file) {
        Ok(contents) => Now::Holds(contents),
        Err(why) => Now::Unreadable(why),
    }
}
