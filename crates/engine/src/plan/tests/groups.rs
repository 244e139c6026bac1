//! Tests of planning for modules that are replaced together with their dependencies.

use rstest::rstest;

use super::*;
use crate::plan::Job;

/// Returns a machine on which spl/1 and zfs/1 are installed and have departed. zfs/1 was built with
/// spl/1. The sources of spl/2 and zfs/2 are present.
fn upgrade() -> TestMachine {
    let machine = TestMachine::new(&[K1])
        .module("spl/1")
        .installed("spl/1", K1)
        .module("zfs/1")
        .depends("zfs/1", "spl")
        .installed("zfs/1", K1)
        .module("spl/2")
        .module("zfs/2")
        .depends("zfs/2", "spl");
    with_dependency(machine, "zfs/1", "spl/1").gone("spl/1").gone("zfs/1")
}

/// Records that a module was built with a dependency.
fn with_dependency(machine: TestMachine, name: &str, dependency: &str) -> TestMachine {
    let fingerprint = pair(dependency, &kernel(K1)).inputs.unwrap().fingerprint();
    machine.pair(name, K1, |pair| {
        let record = pair.built.as_mut().unwrap().record.as_mut().unwrap();
        record.inputs.depends.insert(id(dependency).name, fingerprint);
    })
}

fn sync(machine: &TestMachine) -> Plan {
    machine.sync(&["spl-1", "spl-2", "zfs-1", "zfs-2"], &[])
}

fn with(plan: &Plan, name: &str) -> Vec<String> {
    let job = plan.jobs.iter().find(|job| job.module == id(name)).unwrap();
    job.with.iter().map(ToString::to_string).collect()
}

fn excluded(pair: &mut Pair) {
    pair.conf.as_mut().unwrap().as_mut().unwrap().excluded = Some("not here".into());
}

fn built_only(pair: &mut Pair) {
    pair.built.as_mut().unwrap().installed = false;
}

#[test]
fn module_and_dependency_are_installed_together() {
    let plan = sync(&upgrade());
    assert_eq!(with(&plan, "spl/2"), ["zfs"], "{plan}");
    assert_eq!(with(&plan, "zfs/2"), ["spl"], "{plan}");
}

#[test]
fn modules_of_one_dependency_are_one_group() {
    let machine = upgrade().module("lustre/1").depends("lustre/1", "spl").installed("lustre/1", K1);
    let plan = sync(&with_dependency(machine, "lustre/1", "spl/1"));
    assert_eq!(with(&plan, "lustre/1"), ["spl", "zfs"], "{plan}");
    assert_eq!(with(&plan, "zfs/2"), ["lustre", "spl"], "{plan}");
}

#[rstest]
#[case::not_installed(upgrade().pair("zfs/1", K1, built_only))]
#[case::built_without_dependency(upgrade().pair("zfs/1", K1, |pair| {
    pair.built.as_mut().unwrap().record.as_mut().unwrap().inputs.depends.clear();
}))]
fn module_that_loses_nothing_is_installed_alone(#[case] machine: TestMachine) {
    let plan = sync(&machine);
    assert_eq!(with(&plan, "spl/2"), [""; 0], "{plan}");
}

#[rstest]
#[case::excluded(excluded)]
#[case::bad_conf(|pair: &mut Pair| pair.conf = Some(Err(Failure::new(8, "bad"))))]
fn dependency_stays_if_its_dependent_cannot_follow(#[case] change: fn(&mut Pair)) {
    let plan = sync(&upgrade().pair("zfs/2", K1, change));
    let text = plan.to_string();
    assert!(!text.contains("build ") && !text.contains("install spl/2"), "{text}");
    assert!(!text.contains("uninstall") && !text.contains("depmod"), "{text}");
    let tied = Note::Tied { module: id("spl/2"), kernel: kernel(K1), with: id("zfs/1") };
    assert!(plan.notes.contains(&tied), "{text}");
    let kept = Note::Kept { module: id("spl/1"), kernel: kernel(K1) };
    assert!(plan.notes.contains(&kept), "{text}");
}

#[test]
fn dependency_that_is_built_already_stays_with_its_dependent() {
    let built = |machine: TestMachine| machine.installed("spl/2", K1).pair("spl/2", K1, built_only);
    let plan = sync(&built(upgrade().pair("zfs/2", K1, excluded)));
    assert!(!plan.to_string().contains("install spl/2"), "{plan}");

    let plan = sync(&built(upgrade()));
    assert!(plan.before.iter().all(|step| step.action.job().is_none()), "{plan}");
    let jobs: Vec<&ModuleId> = plan.jobs.iter().map(|job| &job.module).collect();
    assert_eq!(jobs, [&id("spl/2"), &id("zfs/2")], "{plan}");
    assert_eq!(with(&plan, "spl/2"), ["zfs"], "{plan}");
    let Job { install, after, .. } = &plan.jobs[1];
    assert!(install.is_some() && after == &["spl".parse().unwrap()], "{plan}");
}

#[test]
fn whole_group_stays_if_one_module_cannot_follow() {
    let machine = upgrade().module("lustre/1").depends("lustre/1", "spl").installed("lustre/1", K1);
    let machine = with_dependency(machine, "lustre/1", "spl/1").pair("lustre/1", K1, excluded);
    let text = sync(&machine).to_string();
    assert!(!text.contains("install spl/2") && !text.contains("build zfs/2"), "{text}");
    assert!(!text.contains("uninstall"), "{text}");
}

#[test]
fn removed_dependent_holds_nothing() {
    let machine = upgrade().change("zfs/2", |module| {
        module.source = SourcePlace::Missing;
        module.link = SourceLink::None;
    });
    let plan = machine.sync(&["spl-1", "spl-2", "zfs-1"], &[]);
    let text = plan.to_string();
    assert!(text.contains("install spl/2") && text.contains("uninstall zfs/1"), "{text}");
}

#[test]
fn named_module_is_installed_alone() {
    let plan =
        upgrade().pair("zfs/2", K1, excluded).command(Verb::Install, "spl/2", &[K1]).unwrap();
    assert!(plan.to_string().contains("install spl/2"), "{plan}");
}

/// The dependency is renamed from spl to libspl. The modules of both names contain the same object.
#[rstest]
#[case::dependent_follows(false)]
#[case::dependent_is_excluded(true)]
fn renamed_dependency_is_replaced_together_with_its_dependents(#[case] is_excluded: bool) {
    let machine = upgrade().module("libspl/2").objects("libspl/2", &["spl"]);
    let machine = machine.change("spl/2", |spl| {
        (spl.source, spl.link) = (SourcePlace::Missing, SourceLink::None);
    });
    let machine = machine.depends("zfs/2", "libspl");
    let machine = if is_excluded { machine.pair("zfs/2", K1, excluded) } else { machine };
    let plan = machine.sync(&["spl-1", "libspl-2", "zfs-1", "zfs-2"], &[]);
    let text = plan.to_string();
    if is_excluded {
        assert!(!text.contains("install libspl/2") && !text.contains("uninstall"), "{text}");
        let tied = Note::Tied { module: id("libspl/2"), kernel: kernel(K1), with: id("zfs/1") };
        assert!(plan.notes.contains(&tied), "{text}");
    } else {
        assert_eq!(with(&plan, "libspl/2"), ["zfs"], "{text}");
        assert!(text.contains("uninstall spl/1"), "{text}");
    }
}

#[test]
fn dependent_that_departs_is_not_built_again() {
    let machine = upgrade().change("zfs/2", |zfs| {
        (zfs.source, zfs.link) = (SourcePlace::Missing, SourceLink::None);
    });
    let text = machine.sync(&["spl-1", "spl-2", "zfs-1"], &[]).to_string();
    assert!(!text.contains("build zfs/1") && text.contains("uninstall zfs/1"), "{text}");
}
