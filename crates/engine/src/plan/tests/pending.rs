//! Tests of pending work for other kernels, and of failures that an earlier hook has reported.

use super::*;

fn autoinstall(machine: &TestMachine, release: &str, only: bool) -> Plan {
    let request = Request::Autoinstall { kernels: Some(vec![kernel(release)]), only };
    make(&request, &machine.0).unwrap()
}

fn machine() -> TestMachine {
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    TestMachine::new(&[K1, K2]).module("zfs/2").change("zfs/2", added)
}

#[test]
fn autoinstall_for_one_kernel_leaves_the_work_of_others_pending() {
    let install =
        |release: &str| PendingWork::Install { module: id("zfs/2"), kernel: kernel(release) };
    let transaction = PendingWork::Transaction {
        sources: ["zfs-2".to_owned()].into(),
        kernels: [kernel(K1), kernel(K2)].into(),
    };
    let uninstall = PendingWork::Uninstall { module: id("zfs/2"), kernel: kernel(K2) };
    for work in [
        install(K2),
        PendingWork::Kernel(kernel(K2)),
        PendingWork::Source("zfs-2".into()),
        transaction,
        uninstall,
    ] {
        let machine = machine().pending(work.clone());
        let plan = autoinstall(&machine, K1, true);
        let text = plan.to_string();
        assert!(text.contains("install zfs/2 for 7.2.12") && !text.contains("7.2.13"), "{text}");
        let finished = |work: &PendingWork| plan.finishes.contains(work);
        assert!(!finished(&work) && !finished(&PendingWork::Kernel(kernel(K2))), "{work:?}");
        assert!(!finished(&PendingWork::Source("zfs-2".into())), "{work:?}");
        // Without -k, all pending work is done.
        assert!(autoinstall(&machine, K1, false).finishes.len() >= plan.finishes.len());
    }
    let machine = machine().pending(install(K1)).pending(PendingWork::Kernel(kernel(K1)));
    let plan = autoinstall(&machine, K1, true);
    assert_eq!(plan.finishes, [PendingWork::Kernel(kernel(K1)), install(K1)].into());
}

#[test]
fn source_is_finished_if_no_other_kernel_needs_it() {
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    let source = PendingWork::Source("zfs-2".into());
    let machine = TestMachine::new(&[K1]).module("zfs/2").change("zfs/2", added);
    let plan = autoinstall(&machine.pending(source.clone()), K1, true);
    assert_eq!(plan.finishes, [source.clone()].into());
    // The removal of a module concerns all kernels.
    let machine = TestMachine::new(&[K1]).module("zfs/2").installed("zfs/2", K1).gone("zfs/2");
    let departed = PendingWork::DepartedSource("zfs-2".into());
    let plan = autoinstall(&machine.pending(departed), K1, true);
    assert!(plan.finishes.is_empty() && !plan.to_string().contains("uninstall"), "{plan}");
}

#[test]
fn failures_of_the_same_transaction_are_not_tried_again() {
    for transient in [true, false] {
        let mut machine = machine().pending(PendingWork::Source("zfs-2".into()));
        machine.0.tried.insert((id("zfs/2"), kernel(K1)), transient);
        let plan = machine.sync(&[], &[K1]);
        let text = plan.to_string();
        assert!(!text.contains("7.2.12") && text.contains("install zfs/2 for 7.2.13"), "{text}");
        let finished = |work: PendingWork| plan.finishes.contains(&work);
        assert_eq!(finished(PendingWork::Source("zfs-2".into())), !transient);
        assert_eq!(finished(PendingWork::Kernel(kernel(K1))), !transient);
    }
}

#[test]
fn work_of_an_outer_run_is_left_to_it() {
    let transaction = |sources: &[&str], kernels: &[&str]| PendingWork::Transaction {
        sources: sources.iter().map(|dir| (*dir).to_owned()).collect(),
        kernels: kernels.iter().map(|release| kernel(release)).collect(),
    };
    let install = PendingWork::Install { module: id("zfs/2"), kernel: kernel(K1) };
    let all = ["build zfs/2", "build vhba/1"];
    // Each case lists the outer run's work, the builds that a hook plans if a script runs pacman,
    // and the builds that `dkms autoinstall` plans in a script.
    for (work, by_hook, by_command) in [
        (install, &all[1..], &all[1..]),
        (PendingWork::Source("zfs-2".into()), &all[..], &all[1..]),
        (transaction(&["zfs-2"], &[]), &all[..], &all[1..]),
        (transaction(&["other-1"], &[K1]), &all[..], &[]),
        (PendingWork::Kernel(kernel(K2)), &all[..], &all[..]),
    ] {
        let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
        let mut machine = machine().module("vhba/1").change("vhba/1", added);
        machine.0.outer.push(work.clone());
        let plans = [machine.sync(&[], &[K1]), autoinstall(&machine, K1, false)];
        let planned = plans.map(|plan| {
            let plan = plan.to_string();
            all.into_iter().filter(|step| plan.contains(step)).collect::<Vec<_>>()
        });
        assert_eq!(planned, [by_hook, by_command], "{work:?}");
        // A command in a script is carried out.
        let plan = machine.command(Verb::Install, "zfs/2", &[K1]).unwrap().to_string();
        assert!(plan.contains("install zfs/2 for 7.2.12"), "{plan}");
    }
}

#[test]
fn names_that_are_no_kernels_are_reported_as_such() {
    let mut machine = machine();
    machine.0.kernels.insert(
        kernel("7.2.99"),
        KernelFacts {
            inputs: None,
            kernel: Kernel { headers: None, package: None, ..kernel_facts("7.2.99", false).kernel },
            ..kernel_facts("7.2.99", false)
        },
    );
    let plan = machine.command(Verb::Install, "zfs/2", &["7.2.99"]).unwrap().to_string();
    let want = "fail zfs/2 for 7.2.99: no such kernel in /usr/lib/modules (installed: 7.2.12-arch1-1, 7.2.13-arch1-1)\n";
    assert!(plan.ends_with(want), "{plan}");
    machine.0.running = Some(kernel("7.2.99"));
    let plan = machine.command(Verb::Install, "zfs/2", &["7.2.99"]).unwrap().to_string();
    let want = "for 7.2.99: the running kernel is not in /usr/lib/modules (installed: 7.2.12-arch1-1, 7.2.13-arch1-1)\n";
    assert!(plan.ends_with(want), "{plan}");
    // For an existing kernel, the message says that the headers are missing.
    let machine = machine.kernel(K2, |k| (k.kernel.headers, k.inputs) = (None, None));
    let plan = machine.command(Verb::Build, "zfs/2", &[K2]).unwrap().to_string();
    assert!(plan.contains("no kernel headers installed"), "{plan}");
    let machine = machine.kernel(K2, |k| {
        (k.kernel.headers, k.inputs) = (None, None);
        k.dangling = Some("/usr/src/linux-7.2".into());
    });
    let plan = machine.command(Verb::Build, "zfs/2", &[K2]).unwrap().to_string();
    assert!(plan.contains("/build leads to /usr/src/linux-7.2, which does not exist"), "{plan}");
}

#[test]
fn autoinstall_does_not_install_a_module_whose_removal_is_pending() {
    let missing = |m: &mut ModuleFacts| {
        (m.link, m.source, m.source_is_absent) = (SourceLink::Broken, SourcePlace::Missing, true);
    };
    let machine = machine()
        .pending(PendingWork::Remove(id("zfs/2")))
        // This version is installed, but its source is lost.
        .module("zfs/3")
        .installed("zfs/3", K1)
        .change("zfs/3", missing);
    let plan = autoinstall(&machine, K1, false).to_string();
    assert!(!plan.contains("install zfs"), "{plan}");
    // An older version is installed instead, unless its source has departed too.
    let machine = machine.module("zfs/1").change("zfs/1", |m| m.link = SourceLink::Source);
    let plan = autoinstall(&machine, K1, false).to_string();
    assert!(plan.contains("install zfs/1 for 7.2.12-arch1-1, replacing 3"), "{plan}");
    let machine = machine.gone("zfs/1").pending(PendingWork::DepartedSource("zfs-1".into()));
    let plan = autoinstall(&machine, K1, false).to_string();
    assert!(!plan.contains("install zfs/1"), "{plan}");
}

#[test]
fn only_one_version_is_installed_for_a_kernel() {
    // Only a kept copy of the source of zfs/3 is left, so zfs/2 is the version to install.
    let machine = machine().installed("zfs/2", K1).module("zfs/3").installed("zfs/3", K1);
    let machine = machine.gone("zfs/3").pair("zfs/2", K1, |pair| {
        pair.built.as_mut().unwrap().installed = false;
    });
    let interrupted = PendingWork::Install { module: id("zfs/3"), kernel: kernel(K1) };
    let plan = autoinstall(&machine.pending(interrupted.clone()), K1, false);
    let text = plan.to_string();
    assert!(text.contains("install zfs/2 for 7.2.12") && !text.contains("install zfs/3"), "{text}");
    assert!(plan.finishes.contains(&interrupted));
}

#[test]
fn an_interrupted_version_is_finished_before_another_one_is_built() {
    let machine = machine().module("zfs/1").installed("zfs/1", K1);
    let interrupted = PendingWork::Install { module: id("zfs/1"), kernel: kernel(K1) };
    let text = autoinstall(&machine.pending(interrupted), K1, false).to_string();
    let first = text.find("install zfs/1 for 7.2.12").unwrap();
    assert!(first < text.find("build zfs/2 for 7.2.12").unwrap(), "{text}");
}
