//! What becomes of an image whose kernel's modules changed. Pure: equal facts, equal decision.

use std::collections::{BTreeMap, BTreeSet};

use dkms_engine::names::KernelRelease;

use crate::image::contents::Contents;
use crate::image::kmod_name::KmodName;

/// What is known of one image.
#[derive(Debug, Clone)]
pub struct Case {
    /// The kernel that it is made for.
    pub kernel: KernelRelease,
    /// The kernels that are installed.
    pub installed: BTreeSet<KernelRelease>,
    /// The modules that were placed, replaced or taken away for its kernel.
    pub changed: BTreeSet<KmodName>,
    /// Those of ours that its kernel has now.
    pub placed: BTreeSet<KmodName>,
    /// Those that its kernel should have, and has not, since they did not build.
    pub failed: BTreeSet<KmodName>,
    /// What the configuration puts into images, each with the place that says so; none if it cannot be read.
    pub wanted: Option<BTreeMap<KmodName, String>>,
    /// What was noted of it before other packages' hooks regenerated images; none if nothing was.
    pub before: Option<Before>,
    /// What it is now.
    pub now: Now,
}

/// An image as it was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Whether it is still the same file with the same content.
    pub same: bool,
    /// What was in it, if it was there and could be read.
    pub contents: Option<Contents>,
}

/// An image as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now {
    /// Not there.
    Missing,
    /// There, but what is in it cannot be told: why.
    Unreadable(String),
    /// It holds this.
    Holds(Contents),
}

/// What is done with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is as it should be.
    Fine,
    /// Regenerate it, for this reason.
    Regenerate(String),
    /// Leave the good one that is there alone, for this reason.
    Keep(String),
    /// Put back what was there before, for this reason.
    PutBack(String),
}

/// Decides on one image.
#[must_use]
pub fn decide(case: &Case) -> Decision {
    let was = case.before.as_ref().and_then(|before| before.contents.as_ref());
    let regenerated = case.before.as_ref().is_some_and(|before| !before.same);
    let now = match &case.now {
        Now::Missing => return Decision::Regenerate("it is missing".into()),
        Now::Unreadable(why) if regenerated => return Decision::Regenerate(why.clone()),
        Now::Unreadable(_) if case.changed.is_empty() => return Decision::Fine,
        Now::Unreadable(why) => return Decision::Regenerate(format!("{why}, so it may need it")),
        Now::Holds(contents) => contents,
    };
    // Out of reach: the kernel of an image that was put aside may be gone.
    let boots =
        |contents: &Contents| contents.kernels.iter().any(|kernel| case.installed.contains(kernel));
    let wants = |name: &KmodName| case.wanted.as_ref().and_then(|wanted| wanted.get(name));
    if regenerated {
        let held = was.map(|was| &was.modules);
        let lost = |name: &&KmodName| {
            held.is_some_and(|held| held.contains(*name)) && !now.modules.contains(*name)
        };
        if let Some(name) = case.failed.iter().find(lost)
            && was.is_some_and(boots)
        {
            return Decision::PutBack(format!("it was made without {name}, which did not build"));
        }
        let mut new = case.placed.intersection(&case.changed);
        if let Some(name) = new.clone().find(lost) {
            return Decision::Regenerate(format!("it lost {name}"));
        }
        // Its generator complained, or was run before the module was there.
        let lacks = new.find_map(|name| {
            wants(name).filter(|_| !now.modules.contains(name)).map(|place| (name, place))
        });
        return match lacks {
            Some((name, place)) => {
                Decision::Regenerate(format!("it was made without {name}, which is in {place}"))
            }
            None => Decision::Fine,
        };
    }
    let needs = |name: &&KmodName| now.modules.contains(*name) || wants(name).is_some();
    if let Some(name) = case.failed.iter().find(needs)
        && boots(now)
    {
        return Decision::Keep(format!("it needs {name}, which did not build"));
    }
    if !now.kernels.is_empty() && !now.kernels.contains(&case.kernel) {
        let found = now.kernels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Decision::Regenerate(format!("it is still for {found}"));
    }
    if let Some(name) = case.changed.iter().find(|name| now.modules.contains(*name)) {
        return Decision::Regenerate(format!("it holds {name}"));
    }
    let named = case.changed.iter().find_map(|name| Some((name, wants(name)?)));
    match (named, &case.wanted) {
        // One that is gone cannot be put in.
        (Some((name, place)), _) if case.placed.contains(name) => {
            Decision::Regenerate(format!("{name} is in {place}"))
        }
        (None, None) if !case.changed.is_empty() => {
            Decision::Regenerate("what belongs into it cannot be told".into())
        }
        _ => Decision::Fine,
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

    /// An image of [`K2`], which holds no module of ours; zfs was placed anew.
    fn case() -> Case {
        Case {
            kernel: K2.parse().unwrap(),
            installed: kernels(&[K2]),
            changed: names(&["zfs"]),
            placed: names(&["zfs"]),
            failed: names(&[]),
            wanted: Some(BTreeMap::new()),
            before: None,
            now: Now::Holds(holds(K2, &["ext4"])),
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
        assert_eq!(decide(&case()), Decision::Fine);
    }

    #[test]
    fn an_image_with_the_module_is_regenerated() {
        let holding = Case { now: Now::Holds(with_zfs(K2)), ..case() };
        assert_eq!(regenerates(decide(&holding)), "it holds zfs");
    }

    #[test]
    fn an_image_that_should_hold_it_is_regenerated() {
        let wanted =
            BTreeMap::from([(KmodName::new("zfs"), "MODULES of mkinitcpio.conf".to_owned())]);
        let wanting = Case { wanted: Some(wanted), ..case() };
        assert_eq!(regenerates(decide(&wanting)), "zfs is in MODULES of mkinitcpio.conf");
        // Gone for good: it cannot be put in.
        assert_eq!(decide(&Case { placed: names(&[]), ..wanting }), Decision::Fine);
    }

    #[test]
    fn what_cannot_be_told_is_regenerated() {
        assert!(regenerates(decide(&Case { wanted: None, ..case() })).contains("cannot be told"));
        let unreadable = Case { now: Now::Unreadable("lsinitcpio is missing".into()), ..case() };
        assert_eq!(regenerates(decide(&unreadable)), "lsinitcpio is missing, so it may need it");
    }

    #[test]
    fn what_a_neighbour_has_just_regenerated_is_not_done_again() {
        let before = Some(Before { same: false, contents: Some(with_zfs(K2)) });
        let fresh = Case { before, now: Now::Holds(with_zfs(K2)), ..case() };
        assert_eq!(decide(&fresh), Decision::Fine);
    }

    #[test]
    fn what_a_neighbour_left_alone_is_ours_to_do() {
        let before = Some(Before { same: true, contents: Some(with_zfs(K2)) });
        let stale = Case { before, now: Now::Holds(with_zfs(K2)), ..case() };
        assert_eq!(regenerates(decide(&stale)), "it holds zfs");
    }

    #[test]
    fn an_image_that_lost_a_module_that_is_there_is_made_again() {
        let before = Some(Before { same: false, contents: Some(with_zfs(K2)) });
        assert_eq!(regenerates(decide(&Case { before, ..case() })), "it lost zfs");
    }

    #[test]
    fn an_image_that_was_made_without_what_belongs_into_it_is_made_again() {
        let wanted = Some(BTreeMap::from([(KmodName::new("zfs"), "HOOKS".to_owned())]));
        let before = Some(Before { same: false, contents: None });
        let lacking = Case { wanted, before, ..case() };
        assert_eq!(regenerates(decide(&lacking)), "it was made without zfs, which is in HOOKS");
        let holding = Case { now: Now::Holds(with_zfs(K2)), ..lacking };
        assert_eq!(decide(&holding), Decision::Fine);
    }

    #[test]
    fn an_image_made_without_a_module_that_failed_is_put_back_if_its_kernel_is_there() {
        let made_from = |release| Case {
            failed: names(&["zfs"]),
            placed: names(&[]),
            before: Some(Before { same: false, contents: Some(with_zfs(release)) }),
            ..case()
        };
        let why = "it was made without zfs, which did not build";
        assert_eq!(decide(&made_from(K2)), Decision::PutBack(why.into()));
        assert_eq!(decide(&made_from(K1)), Decision::Fine);
    }

    #[test]
    fn a_good_image_is_kept_while_its_module_does_not_build() {
        let failing = || Case {
            failed: names(&["zfs"]),
            placed: names(&[]),
            now: Now::Holds(with_zfs(K1)),
            ..case()
        };
        let both = Case { installed: kernels(&[K1, K2]), ..failing() };
        assert_eq!(decide(&both), Decision::Keep("it needs zfs, which did not build".into()));
        // Its kernel is gone: it is good for nothing.
        assert_eq!(regenerates(decide(&failing())), format!("it is still for {K1}"));
    }

    #[test]
    fn what_is_missing_or_broken_is_made() {
        assert_eq!(regenerates(decide(&Case { now: Now::Missing, ..case() })), "it is missing");
        let before = Some(Before { same: false, contents: None });
        let broken = Case { before, now: Now::Unreadable("it ends early".into()), ..case() };
        assert_eq!(regenerates(decide(&broken)), "it ends early");
    }
}
