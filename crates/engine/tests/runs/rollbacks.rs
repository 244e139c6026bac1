//! Tests of rollbacks of `/usr` without `/var`.

use std::fs;

use dkms_engine::plan::{Request, Verb};
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, PLACED, assert_clean, kernel, sync};

/// Returns a fixture in which an upgrade from [`K1`] to [`K2`] and from foo/1.0 to foo/2.0 was
/// rolled back, except for the dkms tree.
fn rolled_back() -> (Fixture, Vec<u8>) {
    let mut fixture = Fixture::new();
    let root = fixture.root.path().to_owned();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let before = fs::read(fixture.root.at(PLACED)).unwrap();
    fs::rename(root.join("usr/lib/modules"), root.join("modules")).unwrap();
    fs::rename(root.join("usr/src"), root.join("src")).unwrap();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    fixture.root.source("foo", "2.0");
    assert_clean(&fixture.sync(&["foo-1.0", "foo-2.0"], &[K1, K2]));
    for dir in ["usr/lib/modules", "usr/src"] {
        fixture.root.remove(dir);
    }
    fs::rename(root.join("modules"), root.join("usr/lib/modules")).unwrap();
    fs::rename(root.join("src"), root.join("usr/src")).unwrap();
    (fixture, before)
}

#[rstest]
#[case::of_the_boot_unit(sync(&[], &[]))]
#[case::autoinstall(Request::Autoinstall { kernels: None, only: false })]
#[case::of_one_kernel(Request::Autoinstall { kernels: Some(vec![kernel(K1)]), only: true })]
#[case::of_the_kernel(sync(&[], &[K1]))]
fn version_that_was_rolled_back_is_not_built(#[case] request: Request) {
    let (mut fixture, before) = rolled_back();
    let builds = fixture.builds();
    let report = fixture.run(&request);
    assert!(report.is_clean(), "{:?}", report.errors);
    assert_eq!(fs::read(fixture.root.at(PLACED)).unwrap(), before);
    assert!(!fixture.root.exists(format!("var/lib/dkms/foo/2.0/{K1}")));
    assert!(fixture.builds() <= builds + 1, "more than foo/1.0 was built");
}

#[test]
fn kept_source_still_serves_the_kernels_where_it_is_installed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K2]));
    assert!(fixture.installed(K2, "foo.ko"), "the module is installed for another kernel");
    let report = fixture.command(Verb::Uninstall, "foo/1.0");
    assert!(report.is_clean(), "{:?}", report.errors);
}
