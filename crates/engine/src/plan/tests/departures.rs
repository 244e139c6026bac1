//! Tests of modules whose sources or kernels have departed.

use super::*;
use crate::dkms_tree::Attempts;
use crate::facts::SourceLink;

fn built_only(pair: &mut Pair) {
    pair.built.as_mut().unwrap().installed = false;
}

#[test]
fn each_source_link_is_mended_once() {
    let machine = TestMachine::new(&[K1, K2])
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .module("vhba/1")
        .installed("vhba/1", K1)
        .gone("vhba/1");
    let plan = machine.sync(&["zfs-2", "vhba-1"], &[K2]).to_string();
    for module in ["zfs/2", "vhba/1"] {
        assert_eq!(plan.matches(&format!("use the kept source of {module}")).count(), 1, "{plan}");
    }
    // Without a departure, the links are mended because the modules are built for a new kernel.
    let plan = machine.sync(&[], &[K2]).to_string();
    for module in ["zfs/2", "vhba/1"] {
        assert_eq!(plan.matches(&format!("use the kept source of {module}")).count(), 1, "{plan}");
    }
}

#[test]
fn only_an_installed_module_is_kept_for_an_installed_kernel() {
    let excluded = |pair: &mut Pair| {
        pair.conf.as_mut().unwrap().as_mut().unwrap().excluded = Some("not here".into());
    };
    let machine = || {
        TestMachine::new(&[K1])
            .kernel(K2, |about| about.kernel.alive = false)
            .module("zfs/2.3")
            .installed("zfs/2.3", K1)
            .installed("zfs/2.3", K2)
            .gone("zfs/2.3")
            .module("zfs/2.4")
            .pair("zfs/2.4", K1, excluded)
    };
    // Kernel K2 is not installed, so an old module for it is of no use.
    let plan = machine().sync(&["zfs-2.3", "zfs-2.4"], &[]).to_string();
    assert!(plan.contains("uninstall zfs/2.3 from 7.2.13"), "{plan}");
    assert!(!plan.contains("from 7.2.12") && !plan.contains("remove zfs/2.3"), "{plan}");
    // The module is built for K1, but not installed.
    let machine = machine().pair("zfs/2.3", K1, built_only);
    let plan = machine.sync(&["zfs-2.3", "zfs-2.4"], &[]).to_string();
    assert!(plan.contains("delete the build of zfs/2.3 for 7.2.12"), "{plan}");
    assert!(plan.contains("\nremove zfs/2.3") && !plan.contains("stays installed"), "{plan}");
}

#[test]
fn a_transient_failure_of_the_same_transaction_stays_pending() {
    let install =
        |release: &str| PendingWork::Install { module: id("zfs/2"), kernel: kernel(release) };
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    let mut machine = TestMachine::new(&[K1, K2])
        .module("zfs/2")
        .change("zfs/2", added)
        .pending(install(K1))
        .pending(install(K2));
    machine.0.tried.insert((id("zfs/2"), kernel(K1)), true);
    let plan = machine.sync(&[], &[]);
    assert!(!plan.finishes.contains(&install(K1)), "{:?}", plan.finishes);
    assert!(plan.finishes.contains(&install(K2)), "{:?}", plan.finishes);
    // If the failure was not transient, the installation is not repeated.
    machine.0.tried.insert((id("zfs/2"), kernel(K1)), false);
    let plan = machine.sync(&[], &[]);
    assert!(plan.finishes.contains(&install(K1)), "{:?}", plan.finishes);
}

#[test]
fn an_interrupted_uninstallation_is_finished() {
    let work = PendingWork::Uninstall { module: id("zfs/2"), kernel: kernel(K1) };
    let machine = TestMachine::new(&[K1, K2]).module("zfs/2");
    let machine = machine.installed("zfs/2", K1).installed("zfs/2", K2).pending(work.clone());
    let plan = machine.sync(&[], &[]);
    insta::assert_snapshot!(plan, @r"
    uninstall zfs/2 from 7.2.12-arch1-1 (not finished by an earlier run)
    run depmod for 7.2.12-arch1-1
    ");
    assert_eq!(plan.finishes, [work].into());
    // The module is installed again by this run.
    let plan = machine.sync(&[], &[K1]);
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn parked_work_stays_pending() {
    let work = PendingWork::Uninstall { module: id("zfs/2"), kernel: kernel(K1) };
    let machine = TestMachine::new(&[K1]).module("zfs/2").installed("zfs/2", K1);
    let mut machine = machine.pending(work.clone());
    for (count, is_parked) in [(Attempts::MOST - 1, false), (Attempts::MOST, true)] {
        let attempts = Attempts { count, inputs: Digest::of_nothing() };
        machine.0.attempts.insert(work.clone(), attempts);
        let plan = machine.sync(&[], &[]);
        assert_eq!(plan.is_empty(), is_parked, "{plan}");
        assert_eq!(plan.finishes.contains(&work), !is_parked, "{:?}", plan.finishes);
    }
}

#[test]
fn an_unreadable_install_tree_finishes_no_work_for_kernels() {
    let mut machine = TestMachine::new(&[K1]);
    for is_known in [true, false] {
        machine.0.kernels_known = is_known;
        let (arrived, departed) = (subjects(&[], &[K1, K2]), Subjects::default());
        let plan = make(&Request::Sync { arrived, departed, headers: BTreeSet::new() }, &machine.0);
        let finishes = plan.unwrap().finishes;
        assert!(finishes.contains(&PendingWork::Kernel(kernel(K1))));
        assert_eq!(finishes.contains(&PendingWork::Kernel(kernel(K2))), is_known);
    }
}

#[test]
fn the_engine_does_not_finish_the_work_on_images() {
    let image = PendingWork::Image { kernel: kernel(K1), objects: BTreeSet::new() };
    let plan = TestMachine::new(&[K1]).pending(image).sync(&[], &[K1]);
    assert_eq!(plan.finishes, [PendingWork::Kernel(kernel(K1))].into());
}

/// Plans before a transaction that removes alpm-dkms.
fn depart(machine: &TestMachine, sources: &[&str], kernels: &[&str], swap: bool) -> Plan {
    let Subjects { sources, kernels } = subjects(sources, kernels);
    make(&Request::Depart { sources, kernels, swap }, &machine.0).unwrap()
}

#[test]
fn modules_leave_together_with_alpm_dkms() {
    let machine = TestMachine::new(&[K1, K2])
        .module("vhba/1")
        .installed("vhba/1", K1)
        .installed("vhba/1", K2)
        .module("zfs/2")
        .installed("zfs/2", K1);
    let plan = depart(&machine, &["zfs-2"], &[K2], false);
    insta::assert_snapshot!(plan, @r"
    uninstall vhba/1 from 7.2.13-arch1-1
    delete the build of vhba/1 for 7.2.13-arch1-1
    uninstall zfs/2 from 7.2.12-arch1-1
    delete the build of zfs/2 for 7.2.12-arch1-1
    remove zfs/2
    run depmod for 7.2.12-arch1-1
    run depmod for 7.2.13-arch1-1
    remove the files of alpm-dkms from the dkms tree
    ");
    // Another package that provides dkms replaces alpm-dkms, so all modules stay.
    let plan = depart(&machine, &["zfs-2"], &[K2], true);
    assert_eq!(plan.to_string(), "remove the files of alpm-dkms from the dkms tree\n");
}

#[test]
fn old_versions_and_begun_removals_leave_together_with_alpm_dkms() {
    let uninstall = PendingWork::Uninstall { module: id("vhba/1"), kernel: kernel(K1) };
    let machine = TestMachine::new(&[K1])
        .module("vhba/1")
        .installed("vhba/1", K1)
        .pending(uninstall)
        .module("zfs/2")
        .installed("zfs/2", K1)
        .gone("zfs/2")
        .pending(PendingWork::DepartedSource("zfs-2".into()))
        .module("other/1")
        .pending(PendingWork::DepartedSource("other-1".into()))
        .module("zfs/3")
        .module("unknown/1");
    let text = depart(&machine, &["unknown-1", "zfs-3"], &[], false).to_string();
    assert!(text.contains("\nremove zfs/2\n"), "{text}");
    assert!(text.contains("uninstall vhba/1 from") && !text.contains("remove vhba/1"), "{text}");
    // The source of other/1 exists, and unknown/1 has not been added.
    assert!(!text.contains("other/1") && !text.contains("unknown/1"), "{text}");
    // The transaction may be aborted, so an old version stays if its new version does.
    let text = depart(&machine, &["unknown-1"], &[], false).to_string();
    assert!(!text.contains("zfs/2"), "{text}");
    // If the modules stay, the links of sources that depart are mended.
    let text = depart(&machine, &["zfs-2"], &[], true).to_string();
    assert!(text.contains("use the kept source of zfs/2"), "{text}");
}

#[test]
fn a_begun_removal_is_finished_and_cleared() {
    let remove = |name: &str| PendingWork::Remove(id(name));
    // The directory of the module has already been deleted.
    let plan = TestMachine::new(&[K1]).pending(remove("zfs/2")).sync(&[], &[]);
    assert_eq!(plan.to_string(), "remove zfs/2 (not finished by an earlier run)\n");
    assert_eq!(plan.finishes, [remove("zfs/2")].into());
    let machine = TestMachine::new(&[K1]).module("zfs/2").installed("zfs/2", K1).gone("zfs/2");
    let machine = machine.pending(remove("zfs/2"));
    let plan = machine.sync(&[], &[]);
    assert_eq!(plan.to_string().matches("\nremove zfs/2").count(), 1, "{plan}");
    assert_eq!(plan.finishes, [remove("zfs/2")].into());
    // The module stays because its successor is not installed.
    let machine = machine.module("zfs/3").pair("zfs/3", K1, |pair| {
        pair.conf.as_mut().unwrap().as_mut().unwrap().excluded = Some("not here".into());
    });
    let plan = machine.sync(&[], &[]);
    assert!(!plan.to_string().contains("\nremove zfs/2"), "{plan}");
    assert_eq!(plan.finishes, [].into());
}

#[test]
fn a_build_that_is_not_installed_goes_without_waiting_for_its_successor() {
    let machine = TestMachine::new(&[K1])
        .module("old/1")
        .objects("old/1", &["a"])
        .installed("old/1", K1)
        .pair("old/1", K1, built_only)
        .gone("old/1")
        .module("new/1")
        .objects("new/1", &["a"]);
    let text = machine.sync(&["old-1", "new-1"], &[]).to_string();
    assert!(text.contains("install new/1") && text.contains("delete the build of old/1"), "{text}");
    assert!(!text.contains("uninstall"), "{text}");
}
