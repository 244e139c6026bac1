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
    assert_eq!(regenerates(decide(&configuring)), "zfs is required by MODULES in mkinitcpio.conf");
    // A module that has been removed cannot be added to the image.
    assert_eq!(decide(&ImageFacts { placed: names(&[]), ..configuring }), Decision::UpToDate);
}

#[test]
fn regenerates_if_the_image_or_the_configuration_is_unreadable() {
    assert!(
        regenerates(decide(&ImageFacts { configured: None, ..facts() })).contains("cannot read")
    );
    let unreadable =
        ImageFacts { current: CurrentImage::Unreadable("lsinitcpio is missing".into()), ..facts() };
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
    assert_eq!(regenerates(decide(&ImageFacts { earlier, ..facts() })), "no longer contains zfs");
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
/// Each case: the modules in the image before and after, the modules that the configuration names,
/// whether the generator failed, and the lacking modules. `zfs` and `nvidia` are installed; `old`
/// has been removed.
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
    let before = Some(contents(before));
    let facts = ImageFacts {
        changed: names(&["zfs", "old"]),
        placed: names(&["zfs", "nvidia"]),
        configured: Some(configured),
        earlier: Some(EarlierImage { unchanged: false, shrunk: false, contents: before }),
        ..facts()
    };
    let lacking = lacking(&facts, &contents(now), has_failed);
    assert_eq!(lacking, names(&want.split_terminator(' ').collect::<Vec<_>>()));
}
