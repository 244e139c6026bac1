//! Tests of placing objects: conflicts with the objects of the kernel, and symbolic links.

use std::fs;

use dkms_engine::plan::{Note, Plan, Request, Verb};
use dkms_engine::report::{Outcome, Report};
use rstest::rstest;
use testroot::kernel_object;

use crate::fixture::{BUILT, Fixture, K1, K2, PLACED, assert_clean, assert_failed, sync};

/// Asserts that a run had no failures and exactly one declined installation, and returns the
/// reason.
#[track_caller]
fn assert_declined(report: &Report) -> String {
    assert_clean(report);
    let mut declined = report.finished.iter().filter_map(|it| match &it.outcome {
        Outcome::Declined(why) => Some(why.clone()),
        _ => None,
    });
    let why = declined.next().unwrap_or_else(|| panic!("{report:#?}"));
    assert_eq!(declined.next(), None);
    why
}

#[test]
fn older_objects_do_not_replace_newer_ones() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let own = fixture.ship(K1, "kernel/fs/foo.ko", &kernel_object(K1, "foo", &["version=1.10"]));
    let message = assert_declined(&fixture.install());
    assert!(message.contains("version 1.10, this one has 1.0"), "{message}");
    fixture.change = |machine| machine.options.force_version = true;
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(PLACED));
    // A command for one module does not replace an installed newer version.
    fixture.change = |machine| machine.options.module = "foo/0.9".parse().ok();
    fixture.root.remove(&own);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    fixture.root.source("foo", "0.9");
    let message = assert_failed(&fixture.command(Verb::Install, "foo/0.9"), 6);
    assert!(message.contains("version 1.0, this one has 0.9"), "{message}");
    // A transaction may install an older version.
    fixture.change = |_| {};
    assert_clean(&fixture.command(Verb::Install, "foo/0.9"));
}

/// Makes the kernel ship the object that foo/1.0 builds, and deletes the build.
fn ship(fixture: &mut Fixture) {
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    let built = fs::read(fixture.root.path().join(format!("{BUILT}/module/foo.ko"))).unwrap();
    fixture.ship(K1, "kernel/fs/foo.ko", &built);
    assert_clean(&fixture.command(Verb::Unbuild, "foo/1.0"));
}

#[test]
fn module_that_the_kernel_ships_is_noted_and_not_a_failure() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.source("bar", "1.0").conf_line("BUILD_DEPENDS=foo");
    ship(&mut fixture);
    let why = assert_declined(&fixture.sync(&["foo-1.0", "bar-1.0"], &[]));
    let own = fixture.root.at(format!("usr/lib/modules/{K1}/kernel/fs/foo.ko"));
    assert_eq!(why, format!("the kernel already has an identical module: {}", own.display()));
    assert!(!fixture.root.exists(PLACED));
    assert!(fixture.installed(K1, "bar.ko"), "a dependent module can use the kernel's");
    assert!(!fixture.root.exists("var/lib/dkms/.pending"), "{}", fixture.tree());
    // Later plans only note that the installation was declined.
    let noted = |plan: Plan| {
        let declined = |note: &&Note| matches!(note, Note::Declined { .. });
        assert!(plan.is_empty(), "{plan}");
        assert_eq!(plan.notes.iter().filter(declined).count(), 1, "{plan}");
    };
    noted(fixture.plan(&sync(&["foo-1.0", "bar-1.0"], &[K1])));
    noted(fixture.plan(&Request::Autoinstall { kernels: None, only: false }));
    // The object is installed when the kernel no longer ships it.
    fs::remove_file(own).unwrap();
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.root.exists(PLACED));
}

#[test]
fn forced_installation_replaces_the_module_of_the_kernel_once() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    ship(&mut fixture);
    assert_declined(&fixture.install());
    fixture.change = |machine| {
        machine.options.force = true;
        machine.options.force_install = true;
    };
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(PLACED));
    fixture.change = |_| {};
    let plan = fixture.plan(&sync(&["foo-1.0"], &[K1]));
    assert!(plan.is_empty() && plan.notes.is_empty(), "{plan}");
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    assert_declined(&fixture.install());
}

#[test]
fn preferred_module_replaces_that_of_the_kernel() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.kernel(K2).pkgbase("linux-lts").headers();
    let newer = kernel_object(K2, "foo", &["version=9"]);
    fixture.ship(K2, "kernel/net/foo.ko", &newer);
    ship(&mut fixture);
    fixture.sync(&["foo-1.0"], &[]);
    assert!(!fixture.installed(K1, "foo.ko") && !fixture.installed(K2, "foo.ko"));
    fixture.root.write("etc/dkms/alpm-dkms.toml", "[module.foo]\nprefer = \"dkms\"\n");
    assert_clean(&fixture.run(&Request::Autoinstall { kernels: None, only: false }));
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K2, "foo.ko"));
    // Unlike with --force, later builds are installed, too.
    let code = "/* changed */\nMODULE_VERSION(\"1.0\");\n";
    fixture.root.write("usr/src/foo-1.0/foo.c", code);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1, K2])).is_empty());
}

#[test]
fn object_that_the_kernel_already_ships_is_not_installed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["foo", "baz"]);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    let built = fs::read(fixture.root.path().join(format!("{BUILT}/module/foo.ko"))).unwrap();
    fixture.ship(K1, "kernel/fs/foo.ko", &built);
    assert_clean(&fixture.install());
    assert!(
        fixture.output.lines[0]
            .contains("note: foo/1.0: foo.ko: not installed: the kernel already has an identical")
    );
    assert!(!fixture.root.exists(PLACED));
    assert!(fixture.root.exists(PLACED.replace("foo.ko", "baz.ko")));
    // The object that was left out is not a reason to install the others again.
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
}

#[rstest]
#[case::out_and_in(
    "../build/build/${arch}_linux-${kernelver}/net",
    "build/${arch}_linux-${kernelver}/net"
)]
#[case::beside_the_build("../out-$kernelver", "../out-$kernelver")]
fn built_location_may_lead_out_of_the_build_directory(#[case] location: &str, #[case] dir: &str) {
    let mut fixture = Fixture::new();
    let make = format!(
        "MAKE=\"make -C \\$kernel_source_dir M=$dkms_tree/foo/1.0/build && mkdir -p {dir} && mv foo.ko {dir}\""
    );
    let location = format!("BUILT_MODULE_LOCATION[0]=\"{location}\"");
    fixture.root.source("foo", "1.0").conf_line(&make).conf_line(&location);
    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    for release in [K1, K2] {
        let object = fixture.root.at(format!("usr/lib/modules/{release}/updates/dkms/foo.ko"));
        let content = fs::read(object).unwrap();
        let release = format!("vermagic={release} ");
        assert!(content.windows(release.len()).any(|part| part == release.as_bytes()));
    }
}

#[test]
fn obsolete_modules_are_not_installed() {
    let mut fixture = Fixture::new();
    let limit = "OBSOLETE_BY=7.2\nBUILD_EXCLUSIVE_KERNEL_MAX=9";
    fixture.root.source("foo", "1.0").conf_line(limit);
    let message = assert_declined(&fixture.install());
    assert!(message.contains("OBSOLETE_BY"), "{message}");
    fixture.root.write("usr/share/dkms/modules_to_force_install/foo", "bar foo\n");
    assert_clean(&fixture.install());
}

#[test]
fn objects_can_be_installed_as_symlinks() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.change = |machine| machine.settings.framework.symlink_modules = true;
    assert_clean(&fixture.install());
    let target = fs::read_link(fixture.root.path().join(PLACED)).unwrap();
    assert!(target.ends_with(format!("dkms/foo/1.0/{K1}/x86_64/module/foo.ko")), "{target:?}");
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.path().join(PLACED).is_symlink());
}

/// Returns the content of the installed object, which can be a link below the root.
fn object(fixture: &Fixture, place: &str) -> Vec<u8> {
    let path = fixture.root.at(place);
    let target = fs::read_link(&path).map(|it| fixture.root.at(it.strip_prefix("/").unwrap()));
    fs::read(target.unwrap_or(path)).unwrap()
}

#[rstest]
#[case::compiled("", "2")]
#[case::with_post_build("POST_BUILD=true.sh", "2")]
#[case::restored_from_the_cache("", "1")]
fn linked_object_changes_only_when_the_new_build_is_installed(
    #[case] line: &str,
    #[case] last: &str,
) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line(line);
    fixture.root.executable("usr/src/foo-1.0/true.sh", "#!/bin/sh\n");
    fixture.change = |machine| machine.settings.framework.symlink_modules = true;
    let write = |fixture: &Fixture, number: &str| {
        let code = format!("/* {number} */\nMODULE_VERSION(\"1.0\");\n");
        fixture.root.write("usr/src/foo-1.0/foo.c", code);
    };
    for number in ["1", "3"] {
        write(&fixture, number);
        assert_clean(&fixture.install());
    }
    let before = object(&fixture, PLACED);
    write(&fixture, last);
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    assert_eq!(object(&fixture, PLACED), before);
    assert_clean(&fixture.install());
    assert_ne!(object(&fixture, PLACED), before);
    assert!(fixture.root.at(PLACED).is_symlink());
}

#[test]
fn a_build_does_not_change_a_link_to_another_file() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.install());
    fs::rename(fixture.root.at(PLACED), fixture.root.at("srv-foo.ko")).unwrap();
    fixture.root.link(PLACED, "/srv-foo.ko");
    fixture.root.write("usr/src/foo-1.0/foo.c", "/* 2 */\nMODULE_VERSION(\"1.0\");\n");
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    assert!(fixture.root.at(PLACED).is_symlink());
}

#[test]
fn linked_object_stays_if_the_compressed_one_is_not_installed() {
    let mut fixture = Fixture::new();
    fixture.root.kernel(K1).headers().compressed("gz");
    fixture.script("PRE_INSTALL", "! [ -e ../../../no ]");
    fixture.change = |machine| machine.settings.framework.symlink_modules = true;
    assert_clean(&fixture.install());
    let place = format!("{PLACED}.gz");
    let before = object(&fixture, &place);
    let own = fixture.root.at(format!("usr/lib/modules/{K1}/kernel/fs/fake.ko.gz"));
    fs::rename(&own, own.with_extension("xz")).unwrap();
    fixture.root.write("no", "");
    assert_failed(&fixture.install(), 101);
    assert_eq!(object(&fixture, &place), before);
}
