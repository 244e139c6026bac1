//! Tests of the pending work for initramfs images.

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean, assert_failed, id, kernel};

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.change = |machine| machine.images = true;
    fixture
}

fn list(fixture: &Fixture) -> PendingList {
    PendingList::of(&fixture.machine().trees)
}

/// Returns the kernels with pending images, each with the names of the objects.
fn images(fixture: &Fixture) -> Vec<(String, String)> {
    let image = |work| match work {
        PendingWork::Image { kernel, objects } => {
            let objects: Vec<String> = objects.into_iter().collect();
            Some((kernel.to_string(), objects.join(" ")))
        }
        _ => None,
    };
    list(fixture).read().into_iter().filter_map(image).collect()
}

/// The object is already in place when creating the link to the installed version fails.
#[test]
fn images_stay_pending_if_an_installation_fails_after_placing() {
    let mut fixture = fixture();
    fixture.root.write(format!("var/lib/dkms/foo/kernel-{K1}-x86_64/file"), "");
    assert_failed(&fixture.command(Verb::Install, "foo/1.0"), 1);
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(images(&fixture), [(K1.to_owned(), "foo".to_owned())]);
}

#[test]
fn each_kernel_has_one_file_for_all_modules() {
    let mut fixture = fixture();
    fixture.root.kernel(K2).pkgbase("linux-lts").headers();
    fixture.root.source("bar", "1.0");
    fixture.root.source("broken", "1.0").conf_line("MAKE=false");
    fixture.sync(&["foo-1.0", "bar-1.0", "broken-1.0"], &[]);
    let all = |kernel: &str| (kernel.to_owned(), "bar foo".to_owned());
    assert_eq!(images(&fixture), [all(K1), all(K2)]);
    assert_eq!(fixture.root.listing("var/lib/dkms/.pending").lines().count(), 2);
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert_eq!(images(&fixture), [all(K1), all(K2)]);
}

/// A power cut may lose the unsynced record for the images, but it does not lose the record of the
/// pending installation.
#[rstest]
#[case::objects_are_in_place(false)]
#[case::objects_are_missing(true)]
fn images_are_pending_again_after_an_interrupted_installation(#[case] is_missing: bool) {
    let mut fixture = fixture();
    assert_clean(&fixture.install());
    let pending = list(&fixture);
    pending.read().iter().for_each(|work| pending.clear(work).unwrap());
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(images(&fixture), [], "nothing has changed");
    if is_missing {
        fixture.root.remove(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko"));
    }
    let work = PendingWork::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    pending.write(&work).unwrap();
    assert_clean(&fixture.sync(&[], &[]));
    assert_eq!(images(&fixture), [(K1.to_owned(), "foo".to_owned())]);
}
