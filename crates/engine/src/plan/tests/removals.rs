//! What goes, and what has to stay.

use super::*;

use crate::dkms_tree::{KnownFailure, PendingWork};
use crate::facts::{Built, SourceLink, SourcePlace};
use crate::plan::Note;

#[test]
fn a_version_bump_replaces_and_then_retires_the_old_one() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .sync(&["zfs-2.3", "zfs-2.4"], &[]);
    insta::assert_snapshot!(plan, @r"
    use the kept source of zfs/2.3
    add zfs/2.4
    build zfs/2.4 for 7.2.12-arch1-1 (not built yet)
    install zfs/2.4 for 7.2.12-arch1-1 in place of 2.3
    forget what was built of zfs/2.3 for 7.2.12-arch1-1
    forget zfs/2.3
    index the modules of 7.2.12-arch1-1 (depmod)
    ");
}

#[test]
fn the_old_version_stays_where_the_new_one_failed() {
    let failed = KnownFailure {
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/var/lib/dkms/.log/zfs.log"),
    };
    let machine = TestMachine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    let plan = machine.sync(&["zfs-2.3"], &[]);
    insta::assert_snapshot!(plan, @r"
    note: zfs/2.4 did not build for 7.2.12-arch1-1 before and nothing changed (zfs/2.3 stays installed): zfs.c:1: error: no; log: /var/lib/dkms/.log/zfs.log; try again: dkms install zfs/2.4 -k 7.2.12-arch1-1
    note: zfs/2.3 stays installed for 7.2.12-arch1-1: the version that replaces it is not installed there
    use the kept source of zfs/2.3
    ");
    assert_eq!(plan.finishes, [].into(), "the removal stays pending");
    let plan = machine
        .pending(PendingWork::Source("zfs-2.3".into()))
        .gone("zfs/2.4")
        .sync(&["zfs-2.4"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2.3") && text.contains("forget zfs/2.3"), "{text}");
}

#[test]
fn an_old_object_goes_where_the_new_version_is_not_meant() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| {
            pair.conf.as_mut().unwrap().as_mut().unwrap().excluded = Some("not here".into());
        })
        .sync(&["zfs-2.3", "zfs-2.4"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2.3 from"), "{text}");
}

#[test]
fn a_missing_source_that_nobody_removed_is_left_alone() {
    let machine =
        TestMachine::new(&[K1]).module("zfs/2.3").installed("zfs/2.3", K1).gone("zfs/2.3");
    let plan = machine.sync(&["vhba-1"], &[]);
    assert_eq!(plan.steps, []);
    assert!(matches!(&plan.notes[..], [Note::SourceMissing { .. }]), "{plan}");
}

#[test]
fn a_removed_kernel_takes_its_builds_along() {
    let plan = TestMachine::new(&[K2])
        .kernel(K1, |k| (k.kernel.alive, k.kernel.headers) = (false, None))
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    uninstall zfs/2.4 from 7.2.12-arch1-1
    forget what was built of zfs/2.4 for 7.2.12-arch1-1
    remove what is left of 7.2.12-arch1-1
    ");
}

#[test]
fn removed_headers_remove_nothing() {
    let plan = TestMachine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2.4")
        .change("zfs/2.4", |module| module.link = SourceLink::Source)
        .pair("zfs/2.4", K1, |pair| {
            pair.built = Some(Built { installed: true, in_place: true, ..Built::default() });
            (pair.conf, pair.inputs) = (None, None);
        })
        .sync(&[], &[K1]);
    assert_eq!((plan.steps, plan.notes), (vec![], vec![]));
}

#[test]
fn a_copy_of_a_kernel_is_left_alone() {
    let plan = TestMachine::new(&[])
        .kernel(K1, |k| k.owned = false)
        .module("zfs/2.4")
        .sync(&["zfs-2.4"], &[K1]);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.notes, [Note::Copy(kernel(K1))]);
    let left = PendingWork::LeftOver(kernel(K1));
    assert!(
        plan.notes_pending.contains(&left) && !plan.finishes.contains(&left),
        "{:?}",
        plan.notes_pending
    );
}

#[test]
fn a_broken_leftover_is_no_successor() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/1")
        .change("zfs/1", |m| (m.link, m.source) = (SourceLink::Broken, SourcePlace::Missing))
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .sync(&["zfs-2"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2") && text.contains("forget zfs/2"), "{text}");
}

#[test]
fn an_unreadable_install_tree_removes_nothing() {
    let mut machine = TestMachine::new(&[]).module("zfs/2");
    machine.0.kernels_known = false;
    assert_eq!(machine.sync(&[], &[K1]).steps, []);
    assert_eq!(machine.sync(&[], &[K1]).finishes, [].into());
}
