//! Tests of pending work and journals while a run is under way and after it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use dkms_engine::act;
use dkms_engine::dkms_tree::{Operation, PendingList, PendingWork, record_in_journal};
use dkms_engine::facts::{self, OwnTransaction, Scope, Subjects};
use dkms_engine::machine::Transaction;
use dkms_engine::plan::{self, Request};
use dkms_engine::report::{Event, Watch};
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean, kernel, sync};

/// The kinds of entries, such as `transaction`, that were in `T/.pending` during a run.
struct Entries {
    dir: PathBuf,
    seen: BTreeSet<String>,
}

impl Watch for Entries {
    fn event(&mut self, _: &Event<'_>) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            self.seen.insert(entry.file_name().to_str().unwrap().to_owned());
        }
    }
}

impl Fixture {
    /// Runs the hook for a transaction. Returns the names of the entries during the run, except for
    /// the entries of single modules, images and journals.
    fn entries_during(&self, request: &Request) -> Vec<String> {
        let machine = self.machine();
        let mut entries =
            Entries { dir: self.root.at("var/lib/dkms/.pending"), seen: BTreeSet::new() };
        let facts = facts::read(&machine, &Scope::default());
        let plan = plan::make(request, &facts).unwrap();
        assert_clean(&act::carry_out(&plan, &facts, &machine, &mut entries));
        let others = ["install-", "uninstall-", "remove-", "image-", "journal-", "."];
        let is_other = |name: &String| others.iter().any(|other| name.starts_with(other));
        entries.seen.into_iter().filter(|name| !is_other(name)).collect()
    }

    /// Records a transaction whose process has ended.
    fn record(&self, arriving: &[&str], departing: &[&str]) {
        let trees = self.machine().trees;
        self.root.write("var/lib/pacman/db.lck", "");
        let text = toml::to_string(&Transaction::of_this_hook(&trees)).unwrap();
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("pid", _)) => "pid = 4194305\n".to_owned(),
            _ => format!("{line}\n"),
        });
        let transaction: Transaction = toml::from_str(&lines.collect::<String>()).unwrap();
        for (operation, paths) in
            [(Operation::Arriving, arriving), (Operation::Departing, departing)]
        {
            let paths = paths.iter().map(|path| (*path).to_owned());
            record_in_journal(&trees, &transaction, operation, paths).unwrap();
        }
    }

    fn pending(&self) -> Vec<PendingWork> {
        PendingList::of(&self.machine().trees).read()
    }
}

fn subjects(sources: &[&str], kernels: &[&str]) -> Subjects {
    Subjects {
        sources: sources.iter().map(|dir| (*dir).to_owned()).collect(),
        kernels: kernels.iter().map(|release| kernel(release)).collect(),
    }
}

fn request(arrived: Subjects, departed: Subjects) -> Request {
    Request::Sync { arrived, departed, headers: BTreeSet::new() }
}

/// A machine on which foo/1.0 is installed for the kernels `K1` and `K2`.
fn installed() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture
}

/// Removes foo/1.0 and the kernel `K1`, and adds foo/2.0 and another kernel.
fn upgrade(fixture: &Fixture) {
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.remove(format!("usr/lib/modules/{K1}"));
    fixture.root.source("foo", "2.0");
    fixture.root.kernel("7.3").pkgbase("linux").headers();
}

#[test]
fn requested_work_is_recorded_before_the_first_step() {
    let fixture = installed();
    upgrade(&fixture);
    let arrived = subjects(&["foo-2.0"], &["7.3"]);
    let entries = fixture.entries_during(&request(arrived, subjects(&["foo-1.0"], &[K1])));
    let kinds = ["departed-kernel-", "departed-source-", "transaction-"];
    assert_eq!(entries.len(), kinds.len(), "{entries:?}");
    assert!(entries.iter().zip(kinds).all(|(name, kind)| name.starts_with(kind)), "{entries:?}");
    assert!(fixture.pending().iter().all(|work| matches!(work, PendingWork::Image { .. })));
}

#[rstest]
#[case::source(subjects(&["foo-2.0"], &[]))]
#[case::kernel(subjects(&[], &["7.3"]))]
fn a_source_or_kernel_alone_is_recorded(#[case] arrived: Subjects) {
    let fixture = installed();
    upgrade(&fixture);
    let entries = fixture.entries_during(&request(arrived, Subjects::default()));
    assert!(entries.len() == 1 && entries[0].starts_with("transaction-"), "{entries:?}");
}

#[test]
fn work_in_a_journal_is_not_recorded_again() {
    let fixture = installed();
    let kernels = [K1, "7.3"].map(|release| format!("usr/lib/modules/{release}/pkgbase"));
    let (old, new) = ("usr/src/foo-1.0/dkms.conf", "usr/src/foo-2.0/dkms.conf");
    fixture.record(&[new, &kernels[1]], &[old, &kernels[0]]);
    upgrade(&fixture);
    fixture.root.package("foo", "2.0-1", &[new, &kernels[1]]);
    let entries = fixture.entries_during(&request(Subjects::default(), Subjects::default()));
    assert_eq!(entries, [""; 0]);
    assert!(fixture.installed("7.3", "foo.ko") && fixture.installed(K2, "foo.ko"));
    assert!(fixture.pending().iter().all(|work| matches!(work, PendingWork::Image { .. })));
    assert!(!fixture.root.listing("var/lib/dkms").contains("journal-"), "it is settled");
}

/// A later hook of the same transaction regenerates the images.
#[rstest]
#[case::own_with_images(true, true)]
#[case::own_without_images(true, false)]
#[case::another_with_images(false, true)]
fn a_settled_journal_stays_only_while_images_are_pending(
    #[case] is_own: bool,
    #[case] has_images: bool,
) {
    let mut fixture = installed();
    if has_images {
        fixture.change = |machine| machine.images = true;
    }
    let (old, new) = ("usr/src/foo-1.0/dkms.conf", "usr/src/foo-2.0/dkms.conf");
    let trees = fixture.machine().trees;
    let transaction = Transaction::of_this_hook(&trees);
    if is_own {
        let record = |operation, path: &str| {
            record_in_journal(&trees, &transaction, operation, [path.to_owned()]).unwrap();
        };
        record(Operation::Arriving, new);
        record(Operation::Departing, old);
    } else {
        fixture.record(&[new], &[old]);
    }
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0");
    fixture.root.package("foo", "2.0-1", &[new]);
    let own = is_own.then_some(OwnTransaction { transaction, is_completed: true });
    let machine = fixture.machine();
    let facts = facts::read(&machine, &Scope { own, ..Scope::default() });
    let plan = plan::make(&sync(&[], &[]), &facts).unwrap();
    assert_clean(&act::carry_out(&plan, &facts, &machine, &mut fixture.output));
    assert!(fixture.installed(K1, "foo.ko"), "{}", fixture.tree());
    assert_eq!(!fixture.pending().is_empty(), has_images);
    let tree = fixture.root.listing("var/lib/dkms");
    assert_eq!(tree.contains("journal-"), is_own && has_images, "{tree}");
}

#[test]
fn work_in_a_known_entry_is_not_recorded_again() {
    let fixture = installed();
    upgrade(&fixture);
    let sources = ["foo-2.0".to_owned()].into();
    let known = PendingWork::Transaction { sources, kernels: [kernel("7.3")].into() };
    PendingList::of(&fixture.machine().trees).write(&known).unwrap();
    let arrived = subjects(&["foo-2.0"], &["7.3"]);
    let entries = fixture.entries_during(&request(arrived, Subjects::default()));
    assert_eq!(entries.len(), 1, "{entries:?}");
    // An entry for the source alone also counts.
    let fixture = installed();
    upgrade(&fixture);
    let known = PendingWork::Source("foo-2.0".to_owned());
    PendingList::of(&fixture.machine().trees).write(&known).unwrap();
    let arrived = subjects(&["foo-2.0"], &[]);
    let entries = fixture.entries_during(&request(arrived, Subjects::default()));
    assert!(entries.len() == 1 && entries[0].starts_with("source-"), "{entries:?}");
    // An entry for other sources and kernels does not count.
    let fixture = installed();
    upgrade(&fixture);
    let sources = ["bar-1".to_owned()].into();
    let other = PendingWork::Transaction { sources, kernels: [kernel(K2)].into() };
    PendingList::of(&fixture.machine().trees).write(&other).unwrap();
    let arrived = subjects(&["foo-2.0"], &["7.3"]);
    let entries = fixture.entries_during(&request(arrived, Subjects::default()));
    assert_eq!(entries.len(), 2, "{entries:?}");
}

#[test]
fn an_interrupted_transaction_keeps_its_journal() {
    let fixture = installed();
    fixture.record(&["usr/src/foo-2.0/dkms.conf"], &["usr/src/foo-1.0/dkms.conf"]);
    fixture.root.remove("usr/src/foo-1.0");
    let before = fixture.root.listing(format!("usr/lib/modules/{K1}"));
    let nothing = request(Subjects::default(), Subjects::default());
    assert_eq!(fixture.entries_during(&nothing), [""; 0]);
    assert_eq!(fixture.root.listing(format!("usr/lib/modules/{K1}")), before);
    assert!(fixture.root.listing("var/lib/dkms/.pending").contains("journal-"));
}

#[test]
fn nothing_is_recorded_if_there_is_nothing_to_do() {
    let fixture = installed();
    let before = fixture.pending();
    let arrived = subjects(&["foo-1.0"], &[K1]);
    assert_eq!(fixture.entries_during(&request(arrived, Subjects::default())), [""; 0]);
    assert_eq!(fixture.pending(), before);
}

#[test]
fn an_entry_that_cannot_be_written_is_reported() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let list = PendingList::of(&fixture.machine().trees);
    let (sources, kernels) = (["foo-1.0".to_owned()].into(), BTreeSet::new());
    list.write(&PendingWork::Transaction { sources, kernels }).unwrap();
    let dir = fixture.root.at("var/lib/dkms/.pending");
    let entry = fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    let report = fixture.sync(&["foo-1.0"], &[]);
    let name = entry.file_name().unwrap().to_string_lossy();
    assert!(matches!(&report.errors[..], [error] if error.contains(&*name)), "{report:?}");
    assert!(fixture.installed(K1, "foo.ko"));
}
