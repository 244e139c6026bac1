//! Tests of the files that are removed with a kernel or beside an object, and of those that stay.

use std::fs;

use dkms_engine::plan::Verb;
use dkms_engine::report::Outcome;
use rstest::rstest;
use testroot::kernel_object;

use crate::fixture::{Fixture, K1, K2, PLACED, assert_clean};

fn installed_foo() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture
}

/// Removes the files of the kernel's package, as an upgrade does.
fn remove_kernel(fixture: &Fixture) {
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        fixture.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
}

/// Each case is a file in the directory of a removed kernel.
#[rstest]
#[case::of_depmod("modules.dep", false)]
#[case::inventory(".dkms-inventory.unread", false)]
#[case::unfinished("extra/.tmp-own.ko.new", false)]
#[case::of_the_user("extra/own.ko", true)]
#[case::named_like_one_of_depmod("extra/modules.dep", true)]
#[case::named_like_an_inventory("extra/.dkms-inventory", true)]
fn directory_of_a_removed_kernel_stays_with_the_users_files(
    #[case] file: &str,
    #[case] stays: bool,
) {
    let mut fixture = installed_foo();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    remove_kernel(&fixture);
    let file = format!("usr/lib/modules/{K1}/{file}");
    fixture.root.write(&file, "");
    let report = fixture.sync(&[], &[K1, K2]);
    assert_clean(&report);
    assert_eq!(fixture.root.exists(&file), stays);
    assert_eq!(fixture.root.exists(format!("usr/lib/modules/{K1}")), stays);
    assert!(!fixture.root.exists(PLACED));
    let is_skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(why) if why.contains("contains other files"));
    assert_eq!(report.finished.iter().any(|it| is_skipped(&it.outcome)), stays);
}

#[test]
fn removal_from_a_kernel_without_a_directory_reports_no_leftovers() {
    let mut fixture = installed_foo();
    fixture.root.remove(format!("usr/lib/modules/{K1}"));
    let report = fixture.command(Verb::Remove, "foo/1.0");
    assert_clean(&report);
    let steps = report.finished.iter().map(|it| it.step.to_string()).collect::<Vec<_>>();
    assert!(!steps.is_empty() && !steps.iter().any(|it| it.contains("leftover")), "{steps:?}");
}

#[test]
fn a_link_in_place_of_a_removed_kernel_stays() {
    let mut fixture = installed_foo();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    fixture.root.remove(format!("usr/lib/modules/{K1}"));
    fixture.root.link(format!("usr/lib/modules/{K1}"), K2);
    fixture.sync(&[], &[K1]);
    assert!(fixture.root.exists(format!("usr/lib/modules/{K1}/vmlinuz")));
}

/// depmod accepts only one of several files that differ only in their compression.
#[rstest]
#[case::unknown(false)]
#[case::of_a_package(true)]
fn file_with_another_compression_is_removed_unless_a_package_owns_it(#[case] is_owned: bool) {
    let mut fixture = installed_foo();
    let other = format!("{PLACED}.xz");
    fixture.root.write(&other, "another object");
    if is_owned {
        fixture.root.package("foo-bin", "1-1", &[&other]);
    }
    fixture.change = |machine| {
        machine.options.force = true;
        machine.options.force_install = true;
    };
    let report = fixture.install();
    assert!(report.is_clean() && fixture.root.exists(PLACED));
    assert_eq!(fixture.root.exists(&other), is_owned);
    // modprobe loads the file of the package.
    assert_eq!(report.warnings.len(), usize::from(is_owned), "{:?}", report.warnings);
}

#[test]
fn object_replaced_by_hand_stays_beside_one_with_another_compression() {
    let mut fixture = installed_foo();
    let object = kernel_object(K1, "foo", &["version=9"]);
    fixture.root.write(PLACED, &object);
    fixture.root.kernel(K1).headers().compressed("gz");
    fixture.change = |machine| {
        machine.options.force = true;
        machine.options.force_install = true;
    };
    assert_clean(&fixture.command(Verb::Install, "foo/1.0"));
    assert!(fixture.root.exists(format!("{PLACED}.gz")));
    assert_eq!(fs::read(fixture.root.at(PLACED)).unwrap(), object);
}
