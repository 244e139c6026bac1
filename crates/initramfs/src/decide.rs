//! Decides what to do with an image after modules of the image's kernel have changed. Pure: equal
//! facts give an equal decision.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::names::KernelRelease;

use crate::image::{Contents, KmodName};

/// The facts that determine the decision on one image.
#[derive(Debug, Clone)]
pub(crate) struct ImageFacts {
    /// The kernel that the image is for.
    pub(crate) kernel: KernelRelease,
    /// The releases of all installed kernels.
    pub(crate) installed: BTreeSet<KernelRelease>,
    /// Whether the image existed before the transaction; also true if that is unknown.
    pub(crate) existed: bool,
    /// The modules that dkms has installed, replaced or removed for the image's kernel since the
    /// image was last checked.
    pub(crate) changed: BTreeSet<KmodName>,
    /// The modules that dkms has installed for the image's kernel.
    pub(crate) placed: BTreeSet<KmodName>,
    /// The modules that the image's kernel lacks because they failed to build.
    pub(crate) failed: BTreeSet<KmodName>,
    /// The modules that the generator's configuration adds to the image, each mapped to the setting
    /// that names it; `None` if the configuration cannot be read.
    pub(crate) configured: Option<BTreeMap<KmodName, String>>,
    /// The image as it was before other packages' hooks ran; `None` without a usable snapshot.
    pub(crate) earlier: Option<EarlierImage>,
    /// The image as it is now.
    pub(crate) current: CurrentImage,
}

/// The state of an image when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EarlierImage {
    /// Whether the image still has the same content as in the snapshot.
    pub(crate) unchanged: bool,
    /// Whether the image is much smaller now.
    pub(crate) shrunk: bool,
    /// The contents at the time of the snapshot; `None` if the image was missing or could not be
    /// listed.
    pub(crate) contents: Option<Contents>,
}

/// The current state of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CurrentImage {
    Missing,
    /// The image cannot be listed. The string is the reason.
    Unreadable(String),
    Holds(Contents),
}

impl CurrentImage {
    /// Returns the contents of the image; `None` if it is missing or cannot be listed.
    pub(crate) fn contents(&self) -> Option<&Contents> {
        match self {
            Self::Holds(contents) => Some(contents),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

/// The action to take on an image. The string is the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// No action.
    UpToDate,
    Regenerate(String),
    /// Keep the stale image, because a new one would lack a module or cannot be written.
    Keep(String),
    /// Leave the image alone, because its file system is not mounted. It is not known to need a
    /// changed module.
    Unchecked(String),
    /// Restore the image from the copy in the snapshot.
    Restore(String),
}

impl ImageFacts {
    /// Returns true unless the generator's configuration is known not to add any changed module.
    pub(crate) fn may_need_change(&self) -> bool {
        let names = |configured: &BTreeMap<KmodName, String>| {
            self.changed.iter().any(|name| configured.contains_key(name))
        };
        self.configured.as_ref().is_none_or(names)
    }

    /// Returns why a later image with the contents `now` may be incomplete; `None` if it contains
    /// all files of the earlier image, or if that was not an image for the same kernel. Does not
    /// compare kernel modules.
    pub(crate) fn incomplete(&self, now: &Contents) -> Option<String> {
        let earlier = self.earlier.as_ref()?;
        let before = earlier.contents.as_ref().filter(|before| before.is_for(&self.kernel))?;
        match before.lost_file(now) {
            Some(file) => Some(format!("no longer contains {file}")),
            // An image that has lost a module may be smaller for that reason.
            None if !before.modules.is_subset(&now.modules) => None,
            None => earlier.shrunk.then(|| "much smaller than before".to_owned()),
        }
    }
}

/// Returns the action to take on the image that `facts` describes.
pub(crate) fn decide(facts: &ImageFacts) -> Decision {
    let was = facts.earlier.as_ref().and_then(|earlier| earlier.contents.as_ref());
    let regenerated = facts.earlier.as_ref().is_some_and(|earlier| !earlier.unchanged);
    let current = match &facts.current {
        // An image that never existed is not generated.
        CurrentImage::Missing if !facts.existed => return Decision::UpToDate,
        CurrentImage::Missing => return Decision::Regenerate("missing".into()),
        CurrentImage::Unreadable(why) if regenerated => return Decision::Regenerate(why.clone()),
        CurrentImage::Unreadable(_) if facts.changed.is_empty() => return Decision::UpToDate,
        CurrentImage::Unreadable(why) => {
            return Decision::Regenerate(format!("{why}; may contain a changed module"));
        }
        CurrentImage::Holds(contents) => contents,
    };
    // An old image may be for a kernel that is no longer installed.
    let boots = |contents: &Contents| {
        contents.kernels.iter().any(|kernel| facts.installed.contains(kernel))
    };
    let place_of = |name: &KmodName| facts.configured.as_ref()?.get(name);
    if regenerated {
        let held = was.map(|was| &was.modules);
        let lost = |name: &&KmodName| {
            held.is_some_and(|held| held.contains(*name)) && !current.modules.contains(*name)
        };
        if let Some(name) = facts.failed.iter().find(lost)
            && was.is_some_and(|was| was.is_for(&facts.kernel))
        {
            return Decision::Restore(format!("generated without {name}, which failed to build"));
        }
        let mut new = facts.placed.intersection(&facts.changed);
        if let Some(name) = new.clone().find(lost) {
            return Decision::Regenerate(format!("no longer contains {name}"));
        }
        // Either the generator failed, or it ran before the module was installed.
        let lacks = new.find_map(|name| {
            place_of(name).filter(|_| !current.modules.contains(name)).map(|place| (name, place))
        });
        if let Some((name, place)) = lacks {
            let why = format!("generated without {name}, required by {place}");
            return Decision::Regenerate(why);
        }
        // It is unknown whether the generator succeeded when another hook ran it.
        return match facts.incomplete(current) {
            Some(why) => Decision::Regenerate(why),
            None => Decision::UpToDate,
        };
    }
    let needs = |name: &&KmodName| current.modules.contains(*name) || place_of(name).is_some();
    if let Some(name) = facts.failed.iter().find(needs)
        && boots(current)
    {
        return Decision::Keep(format!("requires {name}, which failed to build"));
    }
    if !current.kernels.is_empty() && !current.kernels.contains(&facts.kernel) {
        let found = current.kernels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Decision::Regenerate(format!("generated for {found}"));
    }
    if let Some(name) = facts.changed.iter().find(|name| current.modules.contains(*name)) {
        return Decision::Regenerate(format!("contains {name}, which changed"));
    }
    let named = facts.changed.iter().find_map(|name| Some((name, place_of(name)?)));
    match (named, &facts.configured) {
        // A module that has been removed cannot be added to the image.
        (Some((name, place)), _) if facts.placed.contains(name) => {
            Decision::Regenerate(format!("{name} is required by {place}"))
        }
        (None, None) if !facts.changed.is_empty() => {
            Decision::Regenerate("cannot read the generator's configuration".into())
        }
        _ => Decision::UpToDate,
    }
}

/// Returns the modules that a regenerated image lacks although it should contain them.
///
/// If the generator failed, these are all modules of the earlier image that have not been removed,
/// and all installed dkms modules that the image needs. If the generator succeeded, these are only
/// the installed dkms modules that the earlier image contained and that are still needed: an
/// administrator may have removed a module from the configuration, and a generator omits a driver
/// whose device has been unplugged.
pub(crate) fn lacking(facts: &ImageFacts, now: &Contents, has_failed: bool) -> BTreeSet<KmodName> {
    let before = facts.earlier.as_ref().and_then(|earlier| earlier.contents.as_ref());
    let is_needed = |name: &KmodName| {
        let needed = facts.configured.as_ref();
        facts.placed.contains(name) && needed.is_some_and(|needed| needed.contains_key(name))
    };
    let is_removed = |name: &KmodName| facts.changed.contains(name) && !facts.placed.contains(name);
    // The image of another kernel may need other modules.
    let is_comparable = before.is_some_and(|before| before.is_for(&facts.kernel));
    let counts = |name: &KmodName| match has_failed {
        true => facts.placed.contains(name) || (is_comparable && !is_removed(name)),
        false => is_needed(name),
    };
    let held = before.into_iter().flat_map(|before| &before.modules).filter(|name| counts(name));
    let placed = facts.placed.iter().filter(|name| has_failed && is_needed(name));
    held.chain(placed).filter(|name| !now.modules.contains(*name)).cloned().collect()
}

#[cfg(test)]
mod tests;
