//! Tests of what a running, interrupted or completed transaction permits.

use rstest::rstest;

use super::*;
use crate::dkms_tree::Journal;
use crate::facts::{Stage, TransactionFacts};
use crate::machine::{Leftovers, Transaction, Trees};

const INTERRUPTED: Stage = Stage::Interrupted;
const RUNNING: Stage = Stage::Running { waits_for_us: false };
const IN_SCRIPTLET: Stage = Stage::Running { waits_for_us: true };

/// Returns a transaction in which nothing has arrived or departed yet.
fn transaction(stage: Stage, lacking: Subjects, held: Subjects) -> TransactionFacts {
    TransactionFacts {
        stage,
        arrived: Subjects::default(),
        lacking,
        unlisted: Subjects::default(),
        departed: Subjects::default(),
        held,
        packages: [("zfs-1".to_owned(), "zfs-dkms".to_owned())].into(),
        is_own: false,
        journal: Journal {
            transaction: Transaction::of_this_hook(&Trees::under("/nonexistent".as_ref())),
            arriving: BTreeMap::new(),
            departing: BTreeMap::new(),
            files: Vec::new(),
        },
    }
}

impl TestMachine {
    fn transaction(mut self, transaction: TransactionFacts) -> Self {
        self.0.transactions.push(transaction);
        self
    }
}

/// The source of zfs/1 is gone, and zfs/2 has not arrived.
fn between_two_versions(stage: Stage) -> TestMachine {
    let upgrade = transaction(stage, subjects(&["zfs-2"], &[]), subjects(&["zfs-1"], &[]));
    TestMachine::new(&[K1])
        .module("zfs/1")
        .installed("zfs/1", K1)
        .gone("zfs/1")
        .transaction(upgrade)
}

fn autoinstall(machine: &TestMachine) -> Plan {
    let request = Request::Autoinstall { kernels: None, only: false };
    make(&request, &machine.0).unwrap()
}

#[test]
fn a_module_between_two_versions_is_held() {
    let machine = between_two_versions(INTERRUPTED);
    let plan = machine.sync(&[], &[]);
    insta::assert_snapshot!(plan, @r"
    note: zfs/1: held: pacman was interrupted while it replaced or removed its source
      run: pacman -S --overwrite '*' zfs-dkms, or: dkms remove zfs/1 --all
    use the kept source of zfs/1
    ");
    assert!(plan.settles.is_empty() && plan.finishes.is_empty());
    // The held module is also built for kernels that arrive.
    let mut machine = machine.kernel(K2, |_| {});
    let modules = machine.0.modules.get_mut(&id("zfs/1")).unwrap();
    modules.pairs.insert(kernel(K2), pair("zfs/1", &kernel(K2)));
    let text = machine.sync(&[], &[K2]).to_string();
    assert!(text.contains("build zfs/1 for 7.2.13") && !text.contains("uninstall"), "{text}");
}

/// The transaction has replaced the only kernel for which the old version was installed.
#[rstest]
#[case::between_two_versions(None)]
#[case::the_new_version_is_incomplete(Some("zfs/2"))]
fn a_held_module_is_built_for_the_kernel_that_has_arrived(#[case] incomplete: Option<&str>) {
    let mut machine = between_two_versions(INTERRUPTED).kernel(K2, |_| {});
    for name in ["zfs/1"].into_iter().chain(incomplete) {
        machine = if name == "zfs/1" { machine } else { machine.module(name) };
        let modules = machine.0.modules.get_mut(&id(name)).unwrap();
        modules.pairs.insert(kernel(K2), pair(name, &kernel(K2)));
    }
    let machine = machine.kernel(K1, |about| about.kernel.alive = false);
    let text = machine.sync(&[], &[K2]).to_string();
    assert!(text.contains("install zfs/1 for 7.2.13"), "{text}");
    assert!(!text.contains("zfs/2") && !text.contains("uninstall"), "{text}");
}

#[test]
fn a_completed_departure_permits_the_removal() {
    let mut upgrade = transaction(Stage::Completed, Subjects::default(), Subjects::default());
    upgrade.departed = subjects(&["zfs-1"], &[]);
    let machine = TestMachine::new(&[K1]).module("zfs/1").installed("zfs/1", K1);
    // The source exists again.
    let plan = machine.transaction(upgrade.clone()).sync(&[], &[]);
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.settles, [0].into());
    let machine = TestMachine::new(&[K1]).module("zfs/1").installed("zfs/1", K1).gone("zfs/1");
    let plan = machine.transaction(upgrade.clone()).sync(&[], &[]);
    assert!(plan.to_string().contains("\nremove zfs/1\n"), "{plan}");
    // The source cannot be examined.
    let machine = TestMachine::new(&[K1]).module("zfs/1").installed("zfs/1", K1).gone("zfs/1");
    let machine = machine.change("zfs/1", |module| module.source_is_absent = false);
    let plan = machine.transaction(upgrade).sync(&[], &[]);
    assert!(!plan.to_string().contains("uninstall") && plan.notes.is_empty(), "{plan}");
}

#[test]
fn an_installed_successor_settles_an_interrupted_upgrade() {
    let machine = between_two_versions(INTERRUPTED).module("zfs/3");
    let plan = machine.sync(&["zfs-3"], &[]);
    let text = plan.to_string();
    assert!(text.contains("install zfs/3 for 7.2.12-arch1-1, replacing 1"), "{text}");
    assert!(text.contains("\nremove zfs/1\n"), "{text}");
    assert_eq!(plan.notes, [], "zfs/1 is no longer held");
    assert_eq!(plan.settles, [0].into());
}

#[rstest]
#[case::kernel(subjects(&[], &[K1]), Subjects::default())]
#[case::removed_kernel(Subjects::default(), subjects(&[], &[K1]))]
#[case::source(subjects(&["zfs-2"], &[]), Subjects::default())]
#[case::removed_source(Subjects::default(), subjects(&["zfs-2"], &[]))]
fn what_a_running_transaction_changes_is_left_to_it(
    #[case] lacking: Subjects,
    #[case] held: Subjects,
) {
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    let machine = |stage| {
        let machine = TestMachine::new(&[K1]).module("zfs/2").change("zfs/2", added);
        machine.transaction(transaction(stage, lacking.clone(), held.clone()))
    };
    let plan = autoinstall(&machine(RUNNING));
    assert!(plan.is_empty() && plan.settles.is_empty(), "{plan}");
    assert!(matches!(&plan.notes[..], [Note::Running { .. }]), "{plan}");
    // A command for this module fails, so that it can be repeated.
    let plan = machine(RUNNING).command(Verb::Install, "zfs/2", &[K1]).unwrap();
    assert!(plan.to_string().contains("fail zfs/2 for 7.2.12-arch1-1: pacman is still"), "{plan}");
    // pacman waits for the commands in install scriptlets.
    let plan = machine(IN_SCRIPTLET).command(Verb::Install, "zfs/2", &[K1]).unwrap();
    assert!(plan.to_string().contains("install zfs/2"), "{plan}");
    assert!(autoinstall(&machine(IN_SCRIPTLET)).is_empty());
}

#[test]
fn a_running_transaction_concerns_nothing_else() {
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    let other = transaction(RUNNING, subjects(&["vhba-1"], &[K2]), Subjects::default());
    let machine = TestMachine::new(&[K1]).module("zfs/2").change("zfs/2", added);
    let plan = autoinstall(&machine.transaction(other));
    assert!(plan.to_string().contains("install zfs/2 for 7.2.12"), "{plan}");
}

#[rstest]
#[case::kernel(subjects(&[], &[K1]), "7.2.12-arch1-1: skipped: ")]
#[case::source(subjects(&["zfs-2"], &[]), "/usr/src/zfs-2: skipped: ")]
fn nothing_is_built_with_a_part_of_a_package(#[case] lacking: Subjects, #[case] note: &str) {
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    let interrupted = transaction(INTERRUPTED, lacking, Subjects::default());
    let machine = TestMachine::new(&[K1]).module("zfs/2").change("zfs/2", added);
    let machine = machine.transaction(interrupted);
    let plan = autoinstall(&machine);
    assert!(matches!(&plan.notes[..], [it] if it.to_string().starts_with(note)), "{plan}");
    assert!(plan.is_empty() && plan.settles.is_empty(), "{plan}");
    let plan = machine.command(Verb::Install, "zfs/2", &[K1]).unwrap();
    assert!(plan.to_string().contains("install zfs/2"), "the user insists: {plan}");
}

#[test]
fn the_way_to_install_interrupted_packages_again_is_named_once() {
    let mut machine = between_two_versions(INTERRUPTED);
    let entry =
        |package: &str| (package.to_owned(), format!("/var/lib/pacman/local/{package}-2-1").into());
    machine.0.leftovers = Leftovers {
        lock: Some("/var/lib/pacman/db.lck".into()),
        entries: ["zfs-dkms", "other"].map(entry).into(),
    };
    insta::assert_snapshot!(autoinstall(&machine), @r"
    note: zfs/1: held: pacman was interrupted while it replaced or removed its source
      run: rm -rf /var/lib/pacman/db.lck /var/lib/pacman/local/zfs-dkms-2-1 && pacman -S --overwrite '*' zfs-dkms, or: dkms remove zfs/1 --all
    note: other: pacman was interrupted while it installed or removed this package
      run: rm -rf /var/lib/pacman/db.lck /var/lib/pacman/local/other-2-1 && pacman -S --overwrite '*' other
    use the kept source of zfs/1
    ");
    // A kernel's packages are installed together.
    let partly = |lacking: Subjects, held: Subjects| {
        let mut interrupted = transaction(INTERRUPTED, lacking.clone(), held);
        interrupted.unlisted = lacking;
        let machine = TestMachine::new(&[K1, K2]).transaction(interrupted);
        let notes = autoinstall(&machine).notes.into_iter().map(|note| note.to_string());
        notes.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(partly(subjects(&[], &[K2]), subjects(&[], &[K1])), @r"
    7.2.13-arch1-1: skipped: pacman was interrupted while it installed or removed the kernel or its headers
      run: pacman -S --overwrite '*' linux linux-headers
    7.2.12-arch1-1: skipped: pacman was interrupted while it installed or removed the kernel or its headers
      run: pacman -S --overwrite '*' linux linux-headers
    ");
}

#[rstest]
#[case::untouched(Subjects::default(), &[0, 1])]
#[case::partly_unpacked_kernel(subjects(&[], &[K2]), &[1])]
#[case::partly_unpacked_source(subjects(&["zfs-1"], &[]), &[1])]
fn a_later_transaction_supersedes_the_arrival_of_untouched_packages(
    #[case] unlisted: Subjects,
    #[case] settled: &[usize],
) {
    let lacking = subjects(&["zfs-1"], &[K2]);
    let mut interrupted = transaction(INTERRUPTED, lacking, Subjects::default());
    interrupted.unlisted = unlisted;
    let mut own = transaction(Stage::Completed, Subjects::default(), Subjects::default());
    own.is_own = true;
    let machine = TestMachine::new(&[K1, K2]).module("zfs/1").transaction(interrupted);
    assert!(machine.sync(&[], &[]).settles.is_empty());
    let settles = machine.transaction(own).sync(&[], &[]).settles;
    assert_eq!(settles, settled.iter().copied().collect());
}

#[test]
fn a_module_that_leaves_is_no_successor() {
    // Both modules contain the same object.
    let machine = |held: &[&str]| {
        let machine = TestMachine::new(&[K1]).module("held/1").module("old/1");
        let machine = machine.objects("held/1", &["a"]).objects("old/1", &["a"]);
        let machine = machine.installed("held/1", K1).installed("old/1", K1);
        let interrupted = transaction(INTERRUPTED, Subjects::default(), subjects(held, &[]));
        machine.gone("held/1").gone("old/1").transaction(interrupted)
    };
    let text = machine(&["held-1"]).sync(&["old-1"], &[]).to_string();
    assert!(text.contains("\nremove old/1") && !text.contains("\nremove held/1"), "{text}");
    let text = machine(&["held-1", "old-1"]).sync(&[], &[]).to_string();
    assert_eq!(text.matches("uninstall").count(), 1, "{text}");
}

#[rstest]
#[case::arriving(subjects(&[], &[K2]), subjects(&["old-1"], &[]))]
#[case::departing(Subjects::default(), subjects(&["old-1"], &[K2]))]
fn a_kernel_between_two_versions_keeps_a_held_module(
    #[case] lacking: Subjects,
    #[case] held: Subjects,
) {
    let machine = |lacking: &Subjects, held: &Subjects| {
        let machine = TestMachine::new(&[K1]).kernel(K2, |about| about.kernel.alive = false);
        let machine = machine.module("old/1").installed("old/1", K1).installed("old/1", K2);
        let interrupted = transaction(INTERRUPTED, lacking.clone(), held.clone());
        machine.gone("old/1").module("old/2").transaction(interrupted)
    };
    let text = machine(&lacking, &held).sync(&["old-2"], &[]).to_string();
    assert!(text.contains("install old/2 for 7.2.12-arch1-1, replacing 1"), "{text}");
    assert!(!text.contains("uninstall") && !text.contains("\nremove old/1"), "{text}");
    // No transaction concerns the kernel, so it has been removed for good.
    let text = machine(&Subjects::default(), &subjects(&["old-1"], &[])).sync(&["old-2"], &[]);
    let text = text.to_string();
    assert!(
        text.contains("uninstall old/1 from 7.2.13") && text.contains("\nremove old/1"),
        "{text}"
    );
}

#[test]
fn only_what_a_transaction_concerns_keeps_its_journal() {
    let removed = |about: &mut KernelFacts| about.kernel.alive = false;
    let machine = |held: Subjects| {
        let machine = TestMachine::new(&[K1]).kernel(K2, removed).module("zfs/1");
        machine.installed("zfs/1", K1).transaction(transaction(
            INTERRUPTED,
            Subjects::default(),
            held,
        ))
    };
    let is_settled = |machine: &TestMachine| !machine.sync(&[], &[]).settles.is_empty();
    // The source exists, and the transaction concerns another source.
    assert!(is_settled(&machine(subjects(&["vhba-1"], &[]))));
    // The source is missing for another reason.
    assert!(is_settled(&machine(subjects(&["vhba-1"], &[])).gone("zfs/1")));
    assert!(!is_settled(&machine(subjects(&["zfs-1"], &[])).gone("zfs/1")));
    let not_added = |m: &mut ModuleFacts| m.link = SourceLink::None;
    let machine_without = machine(subjects(&["zfs-1"], &[])).gone("zfs/1");
    assert!(is_settled(&machine_without.change("zfs/1", not_added)));
    // Nothing is built for the kernel, or the kernel exists.
    assert!(is_settled(&machine(subjects(&[], &[K2]))));
    assert!(is_settled(&machine(subjects(&[], &[K1]))));
    assert!(!is_settled(&machine(subjects(&[], &[K2])).installed("zfs/1", K2)));
}

#[test]
fn removal_cancels_the_arrival_of_its_source() {
    let mut arrival = transaction(Stage::Completed, Subjects::default(), Subjects::default());
    arrival.arrived = subjects(&["zfs-2", "spl-1"], &[K2]);
    let added = |m: &mut ModuleFacts| m.link = SourceLink::Source;
    let machine = TestMachine::new(&[K1]).module("zfs/2").change("zfs/2", added);
    let machine = machine.installed("zfs/2", K1).transaction(arrival);
    let [zfs, spl] = ["zfs-2", "spl-1"].map(|dir| PendingWork::Source(dir.into()));
    let plan = machine.command(Verb::Remove, "zfs/2", &[K1]).unwrap();
    assert_eq!(plan.settles, [0].into());
    assert_eq!(plan.notes_pending, [zfs.clone(), spl, PendingWork::Kernel(kernel(K2))].into());
    assert_eq!(plan.finishes, [zfs].into());
    // The module may be wanted for other kernels.
    let plan = machine.command(Verb::Uninstall, "zfs/2", &[K1]).unwrap();
    assert!(plan.settles.is_empty() && plan.finishes.is_empty());
}

#[test]
fn the_link_of_a_held_module_is_mended_once_pacman_has_ended() {
    let text = |machine: TestMachine| machine.sync(&[], &[]).to_string();
    assert!(text(between_two_versions(INTERRUPTED)).contains("use the kept source of zfs/1"));
    // A running transaction may restore the source.
    assert!(!text(between_two_versions(RUNNING)).contains("use the kept source"));
    // There is no kept source, or the link already points to it.
    for link in [SourceLink::Broken, SourceLink::Kept] {
        let machine = between_two_versions(INTERRUPTED).change("zfs/1", |m| m.link = link);
        assert!(!text(machine).contains("use the kept source"));
    }
}
