//! Decides what to do with an image whose kernel's modules changed. Pure: equal facts give an equal decision.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::names::KernelRelease;

use crate::image::{Contents, KmodName};

/// Everything that the decision on one image depends on.
#[derive(Debug, Clone)]
pub(crate) struct ImageFacts {
    /// The kernel that the image is made for.
    pub(crate) kernel: KernelRelease,
    /// The installed kernels.
    pub(crate) installed: BTreeSet<KernelRelease>,
    /// The modules that were placed, replaced or removed for its kernel.
    pub(crate) changed: BTreeSet<KmodName>,
    /// The modules that dkms has placed for its kernel.
    pub(crate) placed: BTreeSet<KmodName>,
    /// The modules that its kernel lacks because they did not build.
    pub(crate) failed: BTreeSet<KmodName>,
    /// The modules that the configuration puts into the image, each with the place that names it; `None` if it cannot be
    /// read.
    pub(crate) configured: Option<BTreeMap<KmodName, String>>,
    /// The image before other packages' hooks ran; `None` without a snapshot.
    pub(crate) earlier: Option<EarlierImage>,
    /// The image now.
    pub(crate) current: CurrentImage,
}

/// An image in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EarlierImage {
    /// Whether the image is unchanged since.
    pub(crate) unchanged: bool,
    /// Its contents; `None` if it was missing or cannot be read.
    pub(crate) contents: Option<Contents>,
}

/// An image now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CurrentImage {
    Missing,
    /// It exists, but cannot be listed for this reason.
    Unreadable(String),
    /// It has these contents.
    Holds(Contents),
}

/// What to do with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing.
    UpToDate,
    /// Regenerate it, for this reason.
    Regenerate(String),
    /// Keep the good image, for this reason.
    Keep(String),
    /// Restore the copy in the snapshot, for this reason.
    Restore(String),
}

/// Decides what to do with one image.
pub(crate) fn decide(facts: &ImageFacts) -> Decision {
    let was = facts.earlier.as_ref().and_then(|earlier| earlier.contents.as_ref());
    let regenerated = facts.earlier.as_ref().is_some_and(|earlier| !earlier.unchanged);
    let current = match &facts.current {
        CurrentImage::Missing => return Decision::Regenerate("it is missing".into()),
        CurrentImage::Unreadable(why) if regenerated => return Decision::Regenerate(why.clone()),
        CurrentImage::Unreadable(_) if facts.changed.is_empty() => return Decision::UpToDate,
        CurrentImage::Unreadable(why) => {
            return Decision::Regenerate(format!("{why}; it may contain a changed module"));
        }
        CurrentImage::Holds(contents) => contents,
    };
    // The kernel of an old image may no longer be installed.
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
            && was.is_some_and(boots)
        {
            return Decision::Restore(format!("it was made without {name}, which did not build"));
        }
        let mut new = facts.placed.intersection(&facts.changed);
        if let Some(name) = new.clone().find(lost) {
            return Decision::Regenerate(format!("it no longer contains {name}"));
        }
        // Its generator failed, or ran before the module was placed.
        let lacks = new.find_map(|name| {
            place_of(name).filter(|_| !current.modules.contains(name)).map(|place| (name, place))
        });
        return match lacks {
            Some((name, place)) => {
                Decision::Regenerate(format!("it was made without {name}, which is in {place}"))
            }
            None => Decision::UpToDate,
        };
    }
    let needs = |name: &&KmodName| current.modules.contains(*name) || place_of(name).is_some();
    if let Some(name) = facts.failed.iter().find(needs)
        && boots(current)
    {
        return Decision::Keep(format!("it needs {name}, which did not build"));
    }
    if !current.kernels.is_empty() && !current.kernels.contains(&facts.kernel) {
        let found = current.kernels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Decision::Regenerate(format!("it was made for {found}"));
    }
    if let Some(name) = facts.changed.iter().find(|name| current.modules.contains(*name)) {
        return Decision::Regenerate(format!("it holds {name}"));
    }
    let named = facts.changed.iter().find_map(|name| Some((name, place_of(name)?)));
    match (named, &facts.configured) {
        // A module that is gone cannot be added.
        (Some((name, place)), _) if facts.placed.contains(name) => {
            Decision::Regenerate(format!("{name} is in {place}"))
        }
        (None, None) if !facts.changed.is_empty() => {
            Decision::Regenerate("cannot read the generator's configuration".into())
        }
        _ => Decision::UpToDate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K1: &str = "7.2.12-arch1-1";
    const K2: &str = "7.2.13-arch1-1";

    fn names(names: &[&str]) -> BTreeSet<KmodName> {
        names.iter().copied().map(KmodName::new).collect()
    }

    fn kernels(releases: &[&str]) -> BTreeSet<KernelRelease> {
        releases.iter().map(|release| release.parse().unwrap()).collect()
    }

    fn holds(release: &str, modules: &[&str]) -> Contents {
        Contents { modules: names(modules), kernels: kernels(&[release]) }
    }

    /// An image of [`K2`] that holds no module of dkms; zfs has just been placed.
    fn facts() -> ImageFacts {
        ImageFacts {
            kernel: K2.parse().unwrap(),
            installed: kernels(&[K2]),
            changed: names(&["zfs"]),
            placed: names(&["zfs"]),
            failed: names(&[]),
            configured: Some(BTreeMap::new()),
            earlier: None,
            current: CurrentImage::Holds(holds(K2, &["ext4"])),
        }
    }

    fn with_zfs(release: &str) -> Contents {
        holds(release, &["ext4", "zfs"])
    }

    fn regenerates(decision: Decision) -> String {
        match decision {
            Decision::Regenerate(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_without_the_module_is_left_alone() {
        assert_eq!(decide(&facts()), Decision::UpToDate);
    }

    #[test]
    fn an_image_with_the_module_is_regenerated() {
        let holding = ImageFacts { current: CurrentImage::Holds(with_zfs(K2)), ..facts() };
        assert_eq!(regenerates(decide(&holding)), "it holds zfs");
    }

    #[test]
    fn an_image_that_should_hold_it_is_regenerated() {
        let configured =
            BTreeMap::from([(KmodName::new("zfs"), "MODULES of mkinitcpio.conf".to_owned())]);
        let configuring = ImageFacts { configured: Some(configured), ..facts() };
        assert_eq!(regenerates(decide(&configuring)), "zfs is in MODULES of mkinitcpio.conf");
        // A module that is gone cannot be added.
        assert_eq!(decide(&ImageFacts { placed: names(&[]), ..configuring }), Decision::UpToDate);
    }

    #[test]
    fn what_cannot_be_read_is_regenerated() {
        assert!(
            regenerates(decide(&ImageFacts { configured: None, ..facts() }))
                .contains("cannot read")
        );
        let unreadable = ImageFacts {
            current: CurrentImage::Unreadable("lsinitcpio is missing".into()),
            ..facts()
        };
        assert_eq!(
            regenerates(decide(&unreadable)),
            "lsinitcpio is missing; it may contain a changed module"
        );
    }

    #[test]
    fn what_another_hook_has_just_regenerated_is_not_done_again() {
        let earlier = Some(EarlierImage { unchanged: false, contents: Some(with_zfs(K2)) });
        let fresh = ImageFacts { earlier, current: CurrentImage::Holds(with_zfs(K2)), ..facts() };
        assert_eq!(decide(&fresh), Decision::UpToDate);
    }

    #[test]
    fn what_another_hook_left_stale_is_regenerated() {
        let earlier = Some(EarlierImage { unchanged: true, contents: Some(with_zfs(K2)) });
        let stale = ImageFacts { earlier, current: CurrentImage::Holds(with_zfs(K2)), ..facts() };
        assert_eq!(regenerates(decide(&stale)), "it holds zfs");
    }

    #[test]
    fn an_image_that_lost_a_module_that_is_there_is_made_again() {
        let earlier = Some(EarlierImage { unchanged: false, contents: Some(with_zfs(K2)) });
        assert_eq!(
            regenerates(decide(&ImageFacts { earlier, ..facts() })),
            "it no longer contains zfs"
        );
    }

    #[test]
    fn an_image_that_was_made_without_what_belongs_into_it_is_made_again() {
        let configured = Some(BTreeMap::from([(KmodName::new("zfs"), "HOOKS".to_owned())]));
        let earlier = Some(EarlierImage { unchanged: false, contents: None });
        let lacking = ImageFacts { configured, earlier, ..facts() };
        assert_eq!(regenerates(decide(&lacking)), "it was made without zfs, which is in HOOKS");
        let holding = ImageFacts { current: CurrentImage::Holds(with_zfs(K2)), ..lacking };
        assert_eq!(decide(&holding), Decision::UpToDate);
    }

    #[test]
    fn an_image_made_without_a_module_that_failed_is_restored_if_its_kernel_is_installed() {
        let made_from = |release| ImageFacts {
            failed: names(&["zfs"]),
            placed: names(&[]),
            earlier: Some(EarlierImage { unchanged: false, contents: Some(with_zfs(release)) }),
            ..facts()
        };
        let why = "it was made without zfs, which did not build";
        assert_eq!(decide(&made_from(K2)), Decision::Restore(why.into()));
        assert_eq!(decide(&made_from(K1)), Decision::UpToDate);
    }

    #[test]
    fn a_good_image_is_kept_while_its_module_does_not_build() {
        let failing = || ImageFacts {
            failed: names(&["zfs"]),
            placed: names(&[]),
            current: CurrentImage::Holds(with_zfs(K1)),
            ..facts()
        };
        let both = ImageFacts { installed: kernels(&[K1, K2]), ..failing() };
        assert_eq!(decide(&both), Decision::Keep("it needs zfs, which did not build".into()));
        // Its kernel is gone: it boots nothing.
        assert_eq!(regenerates(decide(&failing())), format!("it was made for {K1}"));
    }

    #[test]
    fn what_is_missing_or_broken_is_made() {
        assert_eq!(
            regenerates(decide(&ImageFacts { current: CurrentImage::Missing, ..facts() })),
            "it is missing"
        );
        let earlier = Some(EarlierImage { unchanged: false, contents: None });
        let broken = ImageFacts {
            earlier,
            current: CurrentImage::Unreadable("it ends early".into()),
            ..facts()
        };
        assert_eq!(regenerates(decide(&broken)), "it ends early");
    }
}
