//! Tests of the files that killed runs leave behind.

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use rstest::rstest;

use crate::fixture::{Fixture, K1, assert_clean, id, kernel};

/// Each case is the path of an unfinished file. Nothing is pending, and there is nothing to build.
#[rstest]
#[case::dkms_tree("arch", "var/lib/dkms/.tmp-a1")]
#[case::pending_work("arch", "var/lib/dkms/.pending/.tmp-b2")]
#[case::images("arch", "var/lib/dkms/.images/.tmp-c3")]
#[case::kernel("arch", "usr/lib/modules/7.2.12-arch1-1/.tmp-d4")]
#[case::objects("arch", "usr/lib/modules/7.2.12-arch1-1/updates/dkms/.tmp-foo.ko.new")]
#[case::fedora("fedora", "usr/lib/modules/7.2.12-arch1-1/extra/.tmp-foo.ko.new")]
#[case::from_conf("alpine", "usr/lib/modules/7.2.12-arch1-1/kernel/drivers/misc/.tmp-foo.ko.new")]
fn unfinished_file_is_removed_by_a_run_without_work(#[case] system: &str, #[case] file: &str) {
    let mut fixture = Fixture::new();
    fixture.root.write("etc/os-release", format!("ID={system}\n"));
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.install());
    let before = everything(&fixture);
    fixture.root.write(file, "half");
    let own = ["usr/lib/modules/7.2.12-arch1-1/tmp-x", "var/lib/dkms/foo/.tmp_x", "boot/.tmp-x"];
    own.iter().for_each(|own| fixture.root.write(own, ""));
    assert_clean(&fixture.sync(&[], &[]));
    assert!(own.iter().all(|own| fixture.root.exists(own)), "a file of the user was removed");
    own.iter().for_each(|own| fixture.root.remove(own));
    fixture.root.remove("boot");
    assert_eq!(everything(&fixture), before);
}

/// Returns the paths of all files, except for the stored digests and the directory of images, which
/// may be empty.
fn everything(fixture: &Fixture) -> String {
    let ignored = ["/.cache/digests.toml", "/.images/"];
    let listing = fixture.root.listing(".");
    let lines = listing.lines().filter(|line| !ignored.iter().any(|it| line.ends_with(it)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn leftovers_of_another_kernel_are_removed() {
    let mut fixture = Fixture::new();
    let other = "6.12.8-1-lts";
    fixture.root.kernel(other).pkgbase("linux-lts");
    let file = format!("usr/lib/modules/{other}/updates/dkms/.tmp-bar.ko.new");
    fixture.root.write(&file, "half");
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(!fixture.root.exists(&file));
}

/// A run that is killed while it installs leaves an empty build directory, and the next run does
/// not build.
#[test]
fn empty_build_directory_of_a_pending_installation_is_removed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.install());
    let pending = PendingList::of(&fixture.machine().trees);
    let work = PendingWork::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    let build = "var/lib/dkms/foo/1.0/build";
    fixture.root.write(format!("{build}/make.log"), "error");
    for stays in [true, false] {
        pending.write(&work).unwrap();
        assert_clean(&fixture.sync(&[], &[]));
        assert_eq!(fixture.root.exists(build), stays);
        if stays {
            fixture.root.remove(format!("{build}/make.log"));
        }
    }
}

/// A power cut can leave an entry of pending work empty if the work has not begun.
#[test]
fn empty_entry_of_pending_work_is_removed() {
    let mut fixture = Fixture::new();
    let dir = "var/lib/dkms/.pending";
    fixture.root.write(format!("{dir}/install-foo_1.0-x.toml"), "");
    // An entry of a later format stays.
    fixture.root.write(format!("{dir}/install-bar_1.0-x.toml"), "format = 9\n");
    assert_clean(&fixture.sync(&[], &[]));
    assert_eq!(fixture.root.listing(dir).lines().count(), 1);
    fixture.root.remove(format!("{dir}/install-bar_1.0-x.toml"));
    fixture.root.write(format!("{dir}/install-foo_1.0-x.toml"), "");
    assert_clean(&fixture.sync(&[], &[]));
    assert!(!fixture.root.exists(dir));
}
