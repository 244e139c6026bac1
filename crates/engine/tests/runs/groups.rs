//! Tests of modules that are replaced together with the modules on which they depend.

use std::fs;

use dkms_engine::plan::{Note, Request};
use dkms_engine::report::{Outcome, Report};
use rstest::rstest;

use crate::fixture::{Fixture, K1, assert_clean, sync};

const AUTOINSTALL: Request = Request::Autoinstall { kernels: None, only: false };

/// Returns a fixture in which lib/1.0 and app/1.0 were installed, and the sources of both have been
/// replaced by version 2.0. app depends on lib. `conf` is a line in the dkms.conf of app/2.0.
fn upgraded(conf: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.root.source("lib", "1.0");
    fixture.root.source("app", "1.0").conf_line("BUILD_DEPENDS=lib");
    assert_clean(&fixture.sync(&["lib-1.0", "app-1.0"], &[]));
    for old in ["lib", "app"] {
        fixture.root.remove(format!("usr/src/{old}-1.0"));
    }
    fixture.root.source("lib", "2.0");
    fixture.root.source("app", "2.0").conf_line("BUILD_DEPENDS=lib").conf_line(conf);
    fixture
}

fn transaction(fixture: &mut Fixture) -> Report {
    fixture.sync(&["lib-1.0", "app-1.0", "lib-2.0", "app-2.0"], &[])
}

/// Returns the version of each module that is installed.
fn installed(fixture: &Fixture) -> String {
    let version = |name: &str| {
        let link = fixture.root.at(format!("var/lib/dkms/{name}/kernel-{K1}-x86_64"));
        let target = fs::read_link(link).unwrap();
        format!("{name}/{}", target.iter().next().unwrap().display())
    };
    ["lib", "app"].map(version).join(" ")
}

fn objects(fixture: &Fixture) -> [Vec<u8>; 2] {
    let object = |name: &str| format!("usr/lib/modules/{K1}/updates/dkms/{name}.ko");
    ["lib", "app"].map(|name| fs::read(fixture.root.at(object(name))).unwrap())
}

#[test]
fn dependency_and_dependent_are_replaced_in_one_run() {
    let mut fixture = upgraded("");
    assert_clean(&transaction(&mut fixture));
    assert_eq!(installed(&fixture), "lib/2.0 app/2.0");
    assert!(!fixture.root.exists("var/lib/dkms/lib/1.0"));
    assert!(fixture.plan(&AUTOINSTALL).is_empty(), "{}", fixture.plan(&AUTOINSTALL));
}

#[rstest]
#[case::does_not_build("MAKE=\"echo 'app.c:1:1: error: no' >&2; false\"")]
#[case::is_excluded("BUILD_EXCLUSIVE_KERNEL=^5")]
fn dependency_is_not_replaced_without_its_dependent(#[case] hindrance: &str) {
    let mut fixture = upgraded(hindrance);
    let before = objects(&fixture);
    for _ in 0..2 {
        transaction(&mut fixture);
        assert_eq!(installed(&fixture), "lib/1.0 app/1.0");
        assert_eq!(objects(&fixture), before);
    }
    fixture.root.source("app", "2.0").conf_line("BUILD_DEPENDS=lib");
    assert_clean(&fixture.sync(&["app-2.0"], &[]));
    assert_eq!(installed(&fixture), "lib/2.0 app/2.0");
    assert!(!fixture.root.exists("var/lib/dkms/lib/1.0"));
}

#[test]
fn failure_of_a_dependent_is_the_reason_why_its_dependency_stays() {
    let mut fixture = upgraded("MAKE=\"false\"");
    let report = transaction(&mut fixture);
    let outcome = report.finished.iter().find_map(|finished| {
        let text = finished.step.action.to_string();
        text.starts_with("install lib/2.0").then_some(&finished.outcome)
    });
    let why = "replaced only together with app, which failed";
    assert_eq!(outcome, Some(&Outcome::Skipped(why.into())));
    let plan = fixture.plan(&sync(&[], &[K1]));
    assert!(plan.notes.iter().any(|note| matches!(note, Note::Tied { .. })), "{plan}");
    assert!(plan.jobs.is_empty(), "{plan}");
    // autoinstall tries the build again.
    fixture.run(&AUTOINSTALL);
    assert_eq!(installed(&fixture), "lib/1.0 app/1.0");
}

#[test]
fn rebuilt_dependency_stays_if_its_dependent_cannot_be_built_with_it() {
    let mut fixture = Fixture::new();
    fixture.root.source("lib", "1.0");
    let root = fixture.root.path().display();
    let make = format!("make -C {root}/usr/lib/modules/{K1}/build M=$dkms_tree/app/1.0/build");
    let make = format!("MAKE=\"grep -q 1.0 {root}/usr/src/lib-1.0/lib.c && {make}\"");
    fixture.root.source("app", "1.0").conf_line("BUILD_DEPENDS=lib").conf_line(&make);
    assert_clean(&fixture.sync(&["lib-1.0", "app-1.0"], &[]));
    let before = objects(&fixture);
    fixture.root.write("usr/src/lib-1.0/lib.c", "/* changed */\n");
    fixture.sync(&["lib-1.0"], &[]);
    assert_eq!(objects(&fixture), before);
}
