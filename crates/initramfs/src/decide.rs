//! Decides what to do with an image after modules of its kernel have changed. Pure: equal facts
//! give an equal decision.

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
    /// Whether the image existed before the transaction, or may have existed.
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
    /// Whether the image has become much smaller.
    pub(crate) shrunk: bool,
    /// The contents at the time of the snapshot; `None` if the image was missing or its copy cannot
    /// be read.
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

/// The action to take on an image. The string is the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// No action.
    UpToDate,
    Regenerate(String),
    /// Keep the stale image, because a new one would lack a module or cannot be written.
    Keep(String),
    /// Restore the image from the copy in the snapshot.
    Restore(String),
}

impl ImageFacts {
    /// Returns why `now`, a later image for the same kernel, may be incomplete; `None` if it contains
    /// all files of the earlier image. Does not compare kernel modules.
    pub(crate) fn incomplete(&self, now: &Contents) -> Option<String> {
        let earlier = self.earlier.as_ref()?;
        let before = earlier.contents.as_ref().filter(|before| before.is_for(&self.kernel))?;
        match before.lost_file(now) {
            Some(file) => Some(format!("no longer contains {file}")),
            // Without a module, it may be smaller.
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
        // Only our own run of the generator shows whether it succeeds.
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
        // A removed module cannot be added.
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
/// If the generator failed, these are all modules that were in the image `before` and have not been
/// removed, and the installed ones that the image needs. If it succeeded, they are only dkms's
/// modules that were in the image and that it still needs: an administrator may have removed a
/// module from the configuration, and a driver is left out if its device has been unplugged.
pub(crate) fn lacking(
    facts: &ImageFacts,
    before: Option<&Contents>,
    now: &Contents,
    has_failed: bool,
) -> BTreeSet<KmodName> {
    let is_needed = |name: &KmodName| {
        let needed = facts.configured.as_ref();
        facts.placed.contains(name) && needed.is_some_and(|needed| needed.contains_key(name))
    };
    let is_removed = |name: &KmodName| facts.changed.contains(name) && !facts.placed.contains(name);
    // Another kernel may have other modules.
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
        let files = BTreeSet::new();
        Contents { modules: names(modules), kernels: kernels(&[release]), files }
    }

    /// Returns the facts for an image of [`K2`] that contains no dkms module, just after zfs has
    /// been installed.
    fn facts() -> ImageFacts {
        ImageFacts {
            kernel: K2.parse().unwrap(),
            installed: kernels(&[K2]),
            existed: true,
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
    fn ignores_an_image_without_the_changed_module() {
        assert_eq!(decide(&facts()), Decision::UpToDate);
    }

    #[test]
    fn regenerates_an_image_with_the_changed_module() {
        let holding = ImageFacts { current: CurrentImage::Holds(with_zfs(K2)), ..facts() };
        assert_eq!(regenerates(decide(&holding)), "contains zfs, which changed");
    }

    #[test]
    fn regenerates_an_image_that_lacks_a_configured_module() {
        let configured =
            BTreeMap::from([(KmodName::new("zfs"), "MODULES in mkinitcpio.conf".to_owned())]);
        let configuring = ImageFacts { configured: Some(configured), ..facts() };
        assert_eq!(
            regenerates(decide(&configuring)),
            "zfs is required by MODULES in mkinitcpio.conf"
        );
        // A removed module cannot be added.
        assert_eq!(decide(&ImageFacts { placed: names(&[]), ..configuring }), Decision::UpToDate);
    }

    #[test]
    fn regenerates_if_the_image_or_the_configuration_is_unreadable() {
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
            "lsinitcpio is missing; may contain a changed module"
        );
    }

    #[test]
    fn accepts_an_image_that_another_hook_regenerated() {
        let earlier =
            Some(EarlierImage { unchanged: false, shrunk: false, contents: Some(with_zfs(K2)) });
        let fresh = ImageFacts { earlier, current: CurrentImage::Holds(with_zfs(K2)), ..facts() };
        assert_eq!(decide(&fresh), Decision::UpToDate);
    }

    #[test]
    fn regenerates_an_image_that_no_other_hook_regenerated() {
        let earlier =
            Some(EarlierImage { unchanged: true, shrunk: false, contents: Some(with_zfs(K2)) });
        let stale = ImageFacts { earlier, current: CurrentImage::Holds(with_zfs(K2)), ..facts() };
        assert_eq!(regenerates(decide(&stale)), "contains zfs, which changed");
    }

    #[rstest::rstest]
    #[case::complete(K2, false, &["init"], None)]
    #[case::smaller(K2, true, &["init"], Some("much smaller than before"))]
    #[case::without_a_file(K2, false, &[], Some("no longer contains init"))]
    #[case::of_another_kernel(K1, true, &[], None)]
    fn regenerates_an_image_that_may_be_incomplete(
        #[case] release: &str,
        #[case] shrunk: bool,
        #[case] files: &[&str],
        #[case] want: Option<&str>,
    ) {
        let with = |contents: Contents, files: &[&str]| Contents {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            ..contents
        };
        let contents = Some(with(with_zfs(release), &["init"]));
        let earlier = Some(EarlierImage { unchanged: false, shrunk, contents });
        let current = CurrentImage::Holds(with(with_zfs(K2), files));
        let wanted = want.map_or(Decision::UpToDate, |why| Decision::Regenerate(why.into()));
        assert_eq!(decide(&ImageFacts { earlier, current, ..facts() }), wanted);
    }

    #[test]
    fn regenerates_an_image_that_lost_an_installed_module() {
        let earlier =
            Some(EarlierImage { unchanged: false, shrunk: false, contents: Some(with_zfs(K2)) });
        assert_eq!(
            regenerates(decide(&ImageFacts { earlier, ..facts() })),
            "no longer contains zfs"
        );
    }

    #[test]
    fn regenerates_an_image_that_was_generated_without_a_configured_module() {
        let configured = Some(BTreeMap::from([(KmodName::new("zfs"), "HOOKS".to_owned())]));
        let earlier = Some(EarlierImage { unchanged: false, shrunk: false, contents: None });
        let lacking = ImageFacts { configured, earlier, ..facts() };
        assert_eq!(regenerates(decide(&lacking)), "generated without zfs, required by HOOKS");
        let holding = ImageFacts { current: CurrentImage::Holds(with_zfs(K2)), ..lacking };
        assert_eq!(decide(&holding), Decision::UpToDate);
    }

    #[test]
    fn restores_an_image_that_lost_a_failed_module_if_its_kernel_is_installed() {
        let generated_over = |release| ImageFacts {
            failed: names(&["zfs"]),
            placed: names(&[]),
            earlier: Some(EarlierImage {
                unchanged: false,
                shrunk: false,
                contents: Some(with_zfs(release)),
            }),
            ..facts()
        };
        let why = "generated without zfs, which failed to build";
        assert_eq!(decide(&generated_over(K2)), Decision::Restore(why.into()));
        assert_eq!(decide(&generated_over(K1)), Decision::UpToDate);
    }

    #[test]
    fn keeps_an_image_if_a_module_in_it_failed_to_build() {
        let failing = || ImageFacts {
            failed: names(&["zfs"]),
            placed: names(&[]),
            current: CurrentImage::Holds(with_zfs(K1)),
            ..facts()
        };
        let both = ImageFacts { installed: kernels(&[K1, K2]), ..failing() };
        assert_eq!(decide(&both), Decision::Keep("requires zfs, which failed to build".into()));
        // Without its kernel, the image cannot boot.
        assert_eq!(regenerates(decide(&failing())), format!("generated for {K1}"));
    }

    #[test]
    fn regenerates_a_missing_or_broken_image() {
        let missing = ImageFacts { current: CurrentImage::Missing, ..facts() };
        assert_eq!(regenerates(decide(&missing)), "missing");
        assert_eq!(decide(&ImageFacts { existed: false, ..missing }), Decision::UpToDate);
        let earlier = Some(EarlierImage { unchanged: false, shrunk: false, contents: None });
        let broken = ImageFacts {
            earlier,
            current: CurrentImage::Unreadable("unexpected end of file".into()),
            ..facts()
        };
        assert_eq!(regenerates(decide(&broken)), "unexpected end of file");
    }
    /// Each case: the modules before and after, those that the configuration names, whether the
    /// generator failed, and the modules that are lacking. `zfs` and `nvidia` are installed;
    /// `old` has been removed.
    #[rstest::rstest]
    #[case::complete("ext4 zfs old", "ext4 zfs", "zfs", true, "")]
    #[case::without_a_driver("ext4 zfs", "zfs", "zfs", false, "")]
    #[case::without_a_driver_after_a_failure("ext4 zfs", "zfs", "zfs", true, "ext4")]
    #[case::without_its_module("ext4 zfs", "ext4", "zfs", false, "zfs")]
    #[case::no_longer_wanted("ext4 zfs", "ext4", "ext4", false, "")]
    #[case::no_longer_wanted_after_a_failure("ext4 zfs", "ext4", "ext4", true, "zfs")]
    #[case::needs_another("ext4", "ext4", "nvidia", false, "")]
    #[case::needs_another_after_a_failure("ext4", "ext4", "nvidia", true, "nvidia")]
    fn an_image_lacks_what_it_held(
        #[case] before: &str,
        #[case] now: &str,
        #[case] configured: &str,
        #[case] has_failed: bool,
        #[case] want: &str,
    ) {
        let contents = |modules: &str| holds(K2, &modules.split(' ').collect::<Vec<_>>());
        let configured = BTreeMap::from([(KmodName::new(configured), "MODULES".to_owned())]);
        let facts = ImageFacts {
            changed: names(&["zfs", "old"]),
            placed: names(&["zfs", "nvidia"]),
            configured: Some(configured),
            ..facts()
        };
        let lacking = lacking(&facts, Some(&contents(before)), &contents(now), has_failed);
        assert_eq!(lacking, names(&want.split_terminator(' ').collect::<Vec<_>>()));
    }
}
