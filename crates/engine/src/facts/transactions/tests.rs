//! Tests of what the files on disk and pacman's database prove about a transaction.

mod running;

use rstest::rstest;
use testroot::TestRoot;

use super::*;
use crate::dkms_tree::{Operation, record_in_journal};

const OLD: &str = "usr/src/foo-1/dkms.conf";
const NEW: &str = "usr/src/foo-2/dkms.conf";
const HEADERS: &str = "usr/lib/modules/7.2.12-arch1-1/build/include/";
const DATABASE: &str = "var/lib/pacman";

/// A root with pacman's database, in which foo-dkms 1 owns `OLD`.
struct Upgrade {
    root: TestRoot,
    machine: Machine,
    transaction: Transaction,
}

impl Upgrade {
    /// Records the upgrade of foo-dkms from 1 to 2, and an upgrade of the headers, whose path stays
    /// the same.
    fn recorded() -> Self {
        let root = TestRoot::new();
        root.write(OLD, "");
        root.write(format!("{HEADERS}config.h"), "");
        root.write(format!("{DATABASE}/db.lck"), "");
        let upgrade =
            Self { machine: Machine::for_hook(root.path()), transaction: gone(&root), root };
        upgrade.package("foo-dkms-1", &[OLD]);
        upgrade.package("linux-headers-7", &[HEADERS]);
        upgrade.record(Operation::Arriving, &[NEW, HEADERS]);
        upgrade.record(Operation::Departing, &[OLD]);
        upgrade
    }

    fn record(&self, operation: Operation, paths: &[&str]) {
        let paths = paths.iter().map(|path| (*path).to_owned());
        record_in_journal(&self.machine.trees, &self.transaction, operation, paths).unwrap();
    }

    /// Adds a package to the database. `name` ends with the package's version.
    fn package(&self, name: &str, files: &[&str]) {
        let (package, version) = name.rsplit_once('-').unwrap();
        self.root.package(package, version, files);
    }

    fn remove_old(&self) {
        self.root.remove(OLD);
        self.root.remove(format!("{DATABASE}/local/foo-dkms-1"));
    }

    fn judge(&self) -> TransactionFacts {
        let mut all = read(&self.machine, None);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

/// Returns a transaction whose process has ended.
fn gone(root: &TestRoot) -> Transaction {
    let transaction = Transaction::of_this_hook(&Machine::for_hook(root.path()).trees);
    let text = toml::to_string(&transaction).unwrap();
    let pid = format!("pid = {}\n", transaction.process());
    toml::from_str(&text.replace(&pid, "pid = 4194305\n")).unwrap()
}

fn sources(subjects: &Subjects) -> Vec<&str> {
    subjects.sources.iter().map(String::as_str).collect()
}

#[test]
fn nothing_departs_between_two_versions() {
    let upgrade = Upgrade::recorded();
    upgrade.remove_old();
    let between = upgrade.judge();
    assert_eq!(between.stage, Stage::Interrupted);
    assert_eq!((sources(&between.held), sources(&between.lacking)), (vec!["foo-1"], vec!["foo-2"]));
    assert_eq!(sources(&between.unlisted), ["foo-2"]);
    assert_eq!(partly_unpacked_sources(&upgrade.machine), ["foo-2".to_owned()].into());
    assert_eq!(between.packages["foo-1"], "foo-dkms");
    // pacman has extracted the new version, but has not recorded it in the database yet.
    upgrade.root.write(NEW, "");
    let extracted = upgrade.judge();
    assert_eq!((sources(&extracted.held), extracted.stage), (vec!["foo-1"], Stage::Interrupted));
    upgrade.package("foo-dkms-2", &[NEW]);
    let completed = upgrade.judge();
    assert_eq!(completed.stage, Stage::Completed);
    assert_eq!(sources(&completed.departed), ["foo-1"]);
    assert_eq!(sources(&completed.arrived), ["foo-2"]);
    assert_eq!(completed.arrived.kernels.len(), 1);
}

#[test]
fn a_file_that_was_there_before_has_not_arrived() {
    let root = TestRoot::new();
    root.write(NEW, "");
    root.write(format!("{DATABASE}/db.lck"), "");
    let upgrade =
        Upgrade { machine: Machine::for_hook(root.path()), transaction: gone(&root), root };
    upgrade.package("foo-dkms-2", &[NEW]);
    upgrade.record(Operation::Arriving, &[NEW]);
    upgrade.record(Operation::Departing, &[OLD]);
    let untouched = upgrade.judge();
    assert_eq!(sources(&untouched.lacking), ["foo-2"], "it has not been replaced yet");
    assert_eq!(sources(&untouched.unlisted), [""; 0]);
    upgrade.root.remove(NEW);
    upgrade.root.write(NEW, "");
    assert_eq!(upgrade.judge().stage, Stage::Completed);
}

#[test]
fn a_killed_pacman_leaves_incomplete_entries() {
    let upgrade = Upgrade::recorded();
    let trees = &upgrade.machine.trees;
    let unfinished = |own: Option<&OwnTransaction>| {
        let leftovers = leftovers(trees, own, &read(&upgrade.machine, own));
        leftovers.entries.into_iter().map(|(package, _)| package).collect::<Vec<_>>()
    };
    upgrade.remove_old();
    upgrade.root.dir(format!("{DATABASE}/local/foo-dkms-2-1"));
    assert_eq!(unfinished(None), ["foo-dkms"]);
    // The packages of a later transaction are unfinished until its PostTransaction hooks run.
    upgrade.root.remove(format!("{DATABASE}/db.lck"));
    upgrade.root.write(format!("{DATABASE}/db.lck"), "another");
    assert_eq!(unfinished(None), [""; 0]);
    let own = |is_completed| OwnTransaction {
        transaction: Transaction::of_this_hook(trees),
        is_completed,
    };
    assert_eq!(unfinished(Some(&own(false))), [""; 0]);
    assert_eq!(unfinished(Some(&own(true))), ["foo-dkms"]);
    // Without an interruption, nothing is looked up.
    upgrade.root.write(NEW, "");
    upgrade.package("foo-dkms-2", &[NEW]);
    upgrade.root.dir(format!("{DATABASE}/local/other-1-1"));
    assert_eq!(unfinished(Some(&own(true))), [""; 0]);
}

#[rstest]
#[case::files_only(false, Stage::Interrupted)]
#[case::completely(true, Stage::Completed)]
fn a_removed_package_is_gone_from_the_database(#[case] completely: bool, #[case] want: Stage) {
    let root = TestRoot::new();
    root.write(format!("{DATABASE}/db.lck"), "");
    let removal =
        Upgrade { machine: Machine::for_hook(root.path()), transaction: gone(&root), root };
    removal.root.write(OLD, "");
    removal.package("foo-dkms-1", &[OLD]);
    removal.record(Operation::Departing, &[OLD]);
    assert_eq!(removal.judge().stage, Stage::Completed, "nothing has happened yet");
    removal.root.remove(OLD);
    if completely {
        removal.root.remove(format!("{DATABASE}/local/foo-dkms-1"));
        removal.package("bar-1", &["usr/bin/bar"]);
    }
    let facts = removal.judge();
    assert_eq!(facts.stage, want);
    assert_eq!(sources(&facts.departed).is_empty(), !completely);
}

#[test]
fn an_unreadable_database_proves_nothing() {
    let upgrade = Upgrade::recorded();
    upgrade.remove_old();
    upgrade.root.write(NEW, "");
    upgrade.root.remove(format!("{DATABASE}/local"));
    let facts = upgrade.judge();
    assert_eq!((facts.stage, sources(&facts.held)), (Stage::Interrupted, vec!["foo-1"]));
}

#[rstest]
#[case::after(true, Stage::Completed, &["foo-1"])]
#[case::perhaps_before(false, Stage::Running { waits_for_us: false }, &[])]
fn only_a_hook_after_its_transaction_completes_it(
    #[case] is_completed: bool,
    #[case] want: Stage,
    #[case] departed: &[&str],
) {
    let upgrade = Upgrade::recorded();
    upgrade.remove_old();
    let own = OwnTransaction { transaction: upgrade.transaction.clone(), is_completed };
    let all = read(&upgrade.machine, Some(&own));
    assert_eq!((all[0].stage, sources(&all[0].departed)), (want, departed.to_vec()));
}

#[test]
fn a_closed_journal_shows_only_that_the_transaction_is_running() {
    let upgrade = Upgrade::recorded();
    let machine = &upgrade.machine;
    Journal::read_all(&machine.trees)[0].close().unwrap();
    let facts = upgrade.judge();
    assert_eq!((facts.stage, facts.arrived.is_empty()), (Stage::Completed, true));
    assert!(facts.lacking.is_empty() && facts.departed.is_empty() && facts.held.is_empty());

    Journal::read_all(&machine.trees)[0].clear(&machine.trees).unwrap();
    let transaction = Transaction::of_this_hook(&machine.trees);
    let running = Upgrade { transaction, ..upgrade };
    running.record(Operation::Arriving, &[NEW]);
    Journal::read_all(&running.machine.trees)[0].close().unwrap();
    assert!(running.judge().is_running());
}

#[test]
fn a_running_transaction_has_changed_nothing_yet() {
    let upgrade = Upgrade::recorded();
    let trees = &upgrade.machine.trees;
    Journal::read_all(trees)[0].clear(trees).unwrap();
    let transaction = Transaction::of_this_hook(trees);
    let running = Upgrade { transaction, ..upgrade };
    running.record(Operation::Arriving, &[NEW]);
    running.remove_old();
    running.root.write(NEW, "");
    running.package("foo-dkms-2", &[NEW]);
    let facts = running.judge();
    assert!(matches!(facts.stage, Stage::Running { .. }));
    assert_eq!((sources(&facts.arrived), sources(&facts.lacking)), (vec![], vec!["foo-2"]));
}

/// pacman deletes the files of a package, then `files` and then `desc` in its database.
#[rstest]
#[case::until_pacman_has_deleted_its_entry(|removal: &Upgrade| {
    removal.root.remove(OLD);
    removal.root.remove(format!("{DATABASE}/local/foo-dkms-1-1/files"));
})]
#[case::that_cannot_be_examined(|removal: &Upgrade| {
    removal.root.remove("usr/src/foo-1");
    removal.root.write("usr/src/foo-1", "a file in place of the directory");
    removal.root.remove(format!("{DATABASE}/local/foo-dkms-1-1"));
})]
fn a_source_is_held(#[case] change: fn(&Upgrade)) {
    let root = TestRoot::new();
    root.write(format!("{DATABASE}/db.lck"), "");
    root.write(OLD, "");
    root.package("foo-dkms", "1-1", &[OLD]);
    let removal =
        Upgrade { machine: Machine::for_hook(root.path()), transaction: gone(&root), root };
    removal.record(Operation::Departing, &[OLD]);
    change(&removal);
    let facts = removal.judge();
    assert_eq!((sources(&facts.held), facts.stage), (vec!["foo-1"], Stage::Interrupted));
    assert_eq!(sources(&facts.departed), [""; 0]);
}

/// pacman and its hooks were killed, and then the package was removed.
#[test]
fn what_a_later_transaction_removes_is_not_waited_for() {
    let upgrade = Upgrade::recorded();
    upgrade.remove_old();
    upgrade.root.write(NEW, "");
    upgrade.package("foo-dkms-2", &[NEW]);
    let trees = &upgrade.machine.trees;
    let later = Transaction::of_this_hook(trees);
    record_in_journal(trees, &later, Operation::Departing, [NEW.to_owned()]).unwrap();
    upgrade.root.remove(NEW);
    upgrade.root.remove(format!("{DATABASE}/local/foo-dkms-2"));
    let judge = |is_completed| {
        let own = OwnTransaction { transaction: later.clone(), is_completed };
        let all = read(&upgrade.machine, Some(&own));
        all.into_iter().find(|it| it.journal.transaction == upgrade.transaction).unwrap()
    };
    let facts = judge(true);
    assert_eq!(sources(&facts.departed), ["foo-1"]);
    assert!(sources(&facts.held).is_empty() && sources(&facts.arrived).is_empty());
    assert_eq!(sources(&judge(false).held), ["foo-1"], "the removal may not be complete");
}
