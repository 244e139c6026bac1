//! Tests of removal planning.

use rstest::rstest;

use super::*;

use crate::dkms_tree::{KnownFailure, PendingWork};
use crate::facts::{BadHeaders, Built, SourceLink, SourcePlace};
use crate::plan::Note;

#[test]
fn new_version_replaces_the_old_one() {
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
    install zfs/2.4 for 7.2.12-arch1-1, replacing 2.3
    delete the build of zfs/2.3 for 7.2.12-arch1-1
    remove zfs/2.3
    run depmod for 7.2.12-arch1-1
    ");
}

#[test]
fn old_version_stays_installed_if_the_new_one_failed() {
    let failed = KnownFailure {
        transient: false,
        fingerprint: pair("zfs/2.4", &kernel(K1)).inputs.unwrap().fingerprint(),
        what: "zfs.c:1: error: no".into(),
        log: PathBuf::from("/var/lib/dkms/.log/zfs.log"),
        programs: BTreeMap::new(),
    };
    let machine = TestMachine::new(&[K1])
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .gone("zfs/2.3")
        .module("zfs/2.4")
        .pair("zfs/2.4", K1, |pair| pair.failure = Some(failed.clone()));
    let plan = machine.sync(&["zfs-2.3"], &[]);
    insta::assert_snapshot!(plan, @r"
    note: zfs/2.4: skipped for 7.2.12-arch1-1: an earlier build failed and nothing has changed since (zfs/2.3 stays installed)
      cause: zfs.c:1: error: no
      log: /var/lib/dkms/.log/zfs.log
      see: dkms explain zfs/2.4 -k 7.2.12-arch1-1
    note: zfs/2.3: stays installed for 7.2.12-arch1-1: its replacement is not installed
    use the kept source of zfs/2.3
    ");
    assert_eq!(plan.finishes, [].into(), "the removal stays pending");
    let plan = machine
        .pending(PendingWork::DepartedSource("zfs-2.3".into()))
        .gone("zfs/2.4")
        .sync(&["zfs-2.4"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2.3") && text.contains("remove zfs/2.3"), "{text}");
}

/// Modules and the headers of a kernel are upgraded, but not the kernel itself.
#[rstest]
#[case::no_headers(
    |about: &mut KernelFacts| (about.kernel.headers, about.inputs) = (None, None),
    "linux-headers is for 7.2.13-arch1-1 (partial upgrade)"
)]
#[case::headers_in_the_wrong_place(
    |about: &mut KernelFacts| {
        let build = about.kernel.dir.join("build");
        about.bad_headers = Some(BadHeaders::OfRelease(build, K2.into()));
    },
    "are those of 7.2.13-arch1-1, not of 7.2.12-arch1-1"
)]
fn partial_upgrade_names_each_module_that_stays_in_its_old_version(
    #[case] change: fn(&mut KernelFacts),
    #[case] reason: &str,
) {
    let machine = TestMachine::new(&[])
        .kernel(K1, change)
        .kernel(K2, |about| about.kernel.alive = false)
        .module("zfs/2.3")
        .installed("zfs/2.3", K1)
        .module("vhba/1")
        .installed("vhba/1", K1)
        .gone("zfs/2.3")
        .gone("vhba/1")
        .module("zfs/2.4")
        .module("vhba/2")
        .module("unchanged/1")
        .installed("unchanged/1", K1);
    let plan = machine.sync(&["zfs-2.3", "zfs-2.4", "vhba-1", "vhba-2"], &[K2]).to_string();
    assert!(plan.contains(reason), "{plan}");
    for old in ["zfs/2.3", "vhba/1"] {
        let note = format!("{old}: stays installed for {K1}: its replacement is not installed");
        assert!(plan.contains(&note), "{plan}");
    }
    assert!(!plan.contains("unchanged/1: stays") && !plan.contains("uninstall"), "{plan}");
}

/// `pacman -S linux-headers` with a newer package database than at the last upgrade.
#[rstest]
#[case::missing("zfs/2", true)]
#[case::installed("vhba/1", false)]
fn headers_that_fit_no_kernel_are_noted_if_a_module_is_missing(
    #[case] module: &str,
    #[case] noted: bool,
) {
    let machine = TestMachine::new(&[])
        .kernel(K1, |about| (about.kernel.headers, about.inputs) = (None, None))
        .kernel(K2, |about| about.kernel.alive = false)
        .module(module);
    let machine = if noted { machine } else { machine.installed(module, K1) };
    let plan = machine.sync(&[], &[K2]).to_string();
    assert_eq!(
        plan.contains("linux-headers is for 7.2.13-arch1-1 (partial upgrade)"),
        noted,
        "{plan}"
    );
}

#[test]
fn old_version_stays_installed_if_the_new_one_is_excluded() {
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
    assert!(!text.contains("uninstall") && !text.contains("remove"), "{text}");
    let kept = Note::Kept { module: id("zfs/2.3"), kernel: kernel(K1) };
    assert!(plan.notes.contains(&kept), "{text}");
    assert!(!plan.finishes.contains(&PendingWork::DepartedSource("zfs-2.3".into())));
}

/// Modules are not installed through a link, so nothing may be removed through it either.
#[test]
fn old_version_stays_installed_for_a_kernel_that_is_a_link() {
    let mut machine = TestMachine::new(&[K1]).module("zfs/2.3").module("zfs/2.4");
    machine = machine.installed("zfs/2.3", K1).gone("zfs/2.3");
    machine.0.kernels.remove(&kernel(K1));
    machine.0.kernel_links.insert(kernel(K1));
    let plan = machine.sync(&["zfs-2.3", "zfs-2.4"], &[]);
    let kept = Note::Kept { module: id("zfs/2.3"), kernel: kernel(K1) };
    assert!(plan.notes.contains(&kept), "{plan}");
    assert!(!plan.to_string().contains("uninstall"), "{plan}");
}

#[test]
fn source_missing_without_a_transaction_is_only_noted() {
    let machine =
        TestMachine::new(&[K1]).module("zfs/2.3").installed("zfs/2.3", K1).gone("zfs/2.3");
    let plan = machine.sync(&["vhba-1"], &[]);
    assert!(plan.is_empty(), "{plan}");
    assert!(matches!(&plan.notes[..], [Note::SourceMissing { .. }]), "{plan}");
}

#[test]
fn builds_of_removed_kernels_are_deleted() {
    let plan = TestMachine::new(&[K2])
        .kernel(K1, |k| (k.kernel.alive, k.kernel.headers) = (false, None))
        .module("zfs/2.4")
        .installed("zfs/2.4", K1)
        .sync(&[], &[K1]);
    insta::assert_snapshot!(plan, @r"
    uninstall zfs/2.4 from 7.2.12-arch1-1
    delete the build of zfs/2.4 for 7.2.12-arch1-1
    remove leftover files of 7.2.12-arch1-1
    ");
}

#[test]
fn removing_headers_removes_no_modules() {
    let plan = TestMachine::new(&[])
        .kernel(K1, |k| (k.kernel.headers, k.inputs) = (None, None))
        .module("zfs/2.4")
        .change("zfs/2.4", |module| module.link = SourceLink::Source)
        .pair("zfs/2.4", K1, |pair| {
            pair.built = Some(Built { installed: true, in_place: true, ..Built::default() });
            (pair.conf, pair.inputs) = (None, None);
        })
        .sync(&[], &[K1]);
    assert!(plan.is_empty() && plan.notes.is_empty(), "{plan}");
}

#[test]
fn kernel_copies_are_skipped() {
    let plan = TestMachine::new(&[])
        .kernel(K1, |k| k.owned = false)
        .module("zfs/2.4")
        .sync(&["zfs-2.4"], &[K1]);
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.notes, [Note::Copy(kernel(K1))]);
    let left = PendingWork::DepartedKernel(kernel(K1));
    assert!(
        plan.notes_pending.contains(&left) && !plan.finishes.contains(&left),
        "{:?}",
        plan.notes_pending
    );
}

#[test]
fn broken_version_does_not_replace_a_removed_one() {
    let plan = TestMachine::new(&[K1])
        .module("zfs/1")
        .change("zfs/1", |m| (m.link, m.source) = (SourceLink::Broken, SourcePlace::Missing))
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .sync(&["zfs-2"], &[]);
    let text = plan.to_string();
    assert!(text.contains("uninstall zfs/2") && text.contains("remove zfs/2"), "{text}");
}

#[test]
fn nothing_is_removed_if_the_install_tree_is_unreadable() {
    let mut machine = TestMachine::new(&[]).module("zfs/2");
    machine.0.kernels_known = false;
    assert!(machine.sync(&[], &[K1]).is_empty());
    assert_eq!(machine.sync(&[], &[K1]).finishes, [].into());
}

#[test]
fn a_later_arrival_cancels_a_departure() {
    let departed =
        [PendingWork::DepartedSource("zfs-2".into()), PendingWork::DepartedKernel(kernel(K1))];
    let [source, old_kernel] = departed.clone();
    let machine = TestMachine::new(&[K1]).module("zfs/2").installed("zfs/2", K1);
    let plan = machine.pending(source).pending(old_kernel).sync(&["zfs-2"], &[K1]);
    assert!(departed.iter().all(|work| plan.finishes.contains(work)), "{:?}", plan.finishes);
}
