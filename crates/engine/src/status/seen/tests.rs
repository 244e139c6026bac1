//! What is taken from the last look, and what makes it void.

use rstest::rstest;
use std::thread::sleep;
use std::time::Duration;
use testroot::TestRoot;

use super::*;
use crate::distribution::Placement;
use crate::record;
use crate::status::{Filter, Line, lines};

const KERNEL: &str = "7.2-arch1";

/// A root with one module that is built and installed, with our record.
fn machine() -> (TestRoot, Trees) {
    let root = TestRoot::new();
    root.source("a", "1");
    root.dir("var/lib/dkms/a/1/build");
    root.link("var/lib/dkms/a/1/source", "/usr/src/a-1");
    root.write(stored(), "object");
    root.write(placed(), "object");
    root.link(format!("var/lib/dkms/a/kernel-{KERNEL}-x86_64"), format!("1/{KERNEL}/x86_64"));
    let trees = Trees::under(root.path());
    write_record(&trees);
    (root, trees)
}

fn stored() -> String {
    format!("var/lib/dkms/a/1/{KERNEL}/x86_64/module/a.ko.zst")
}

fn placed() -> String {
    format!("usr/lib/modules/{KERNEL}/updates/dkms/a.ko.zst")
}

fn write_record(trees: &Trees) {
    let (name, location) = ("a.ko.zst".into(), "updates/dkms".into());
    let objects = vec![record::Object { name, digest: Digest::of_bytes(b""), location }];
    let record = Record { objects, ..Record::sample("a/1", KERNEL, "") };
    let path = Record::path(trees, &record.module, &record.kernel, &record.arch);
    record.write(&path).unwrap();
}

fn write(trees: &Trees, seen: &Seen) {
    fs::create_dir_all(trees.cache()).unwrap();
    fs::write(file(trees), postcard::to_stdvec(seen).unwrap()).unwrap();
}

/// Lets files grow older than a tick of any clock.
fn settle() {
    sleep(Duration::from_millis(150));
}

fn in_order(trees: &Trees) -> bool {
    let state = State::read(trees);
    let module = &state.modules[0];
    Seen::read(trees).in_order(&module.id, &module.kernels[0])
}

fn status(trees: &Trees) -> String {
    let placement = Placement::Fixed("updates/dkms".into());
    let seen = Seen::read(trees);
    let state = seen.state(trees);
    assert_eq!(state, State::read(trees), "what was seen is what is there");
    let said = lines(trees, &state, &placement, &Filter::default(), &seen);
    said.iter().map(Line::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_was_seen_is_not_read_again() {
    let (root, trees) = machine();
    // No reader would call these the same.
    root.write(placed(), "another");
    settle();
    assert!(
        status(&trees).ends_with(": installed (Differences between built and installed modules)")
    );
    let stat = |path: String| stat_of_file(CWD, &root.at(path)).unwrap();
    let (stamp, _) = Stamp::of(&[stat(stored()), stat(placed())]);
    let objects = vec![Object { name: "a.ko.zst".into(), location: "updates/dkms".into() }];
    let built = State::read(&trees).modules[0].kernels[0].clone();
    let versions = vec![("1".parse().unwrap(), vec![(built, Some(Look { stamp, objects }))])];
    let name = "a".parse().unwrap();
    let directories = stats_of_directories(&trees, &name).unwrap();
    let module = Module::new(&trees.module(&name), versions, &directories).unwrap();
    let seen = Seen { format: FORMAT, modules: [(name, module)].into() };
    write(&trees, &seen);
    assert!(status(&trees).ends_with("x86_64: installed"));
}

type Change = fn(&TestRoot);

#[rstest]
#[case::stored_in_place(|root: &TestRoot| root.write(stored(), "OBJECT"), true)]
#[case::placed_in_place(|root: &TestRoot| root.write(placed(), "OBJECT"), true)]
#[case::replaced_by_a_link(|root: &TestRoot| {
    root.remove(placed());
    root.link(placed(), "/dev/null");
}, true)]
#[case::placed_gone(|root: &TestRoot| root.remove(placed()), true)]
#[case::stored_gone(|root: &TestRoot| root.remove(stored()), true)]
#[case::uninstalled(|root: &TestRoot| root.remove(format!("var/lib/dkms/a/kernel-{KERNEL}-x86_64")), false)]
#[case::other_record(|root: &TestRoot| {
    let path = format!("var/lib/dkms/a/1/{KERNEL}/x86_64/{}", record::FILE_NAME);
    let text = root.read(&path).replace("a.ko.zst", "b.ko.zst");
    // As we write it: it takes the place of the old one.
    durable::write(&root.at(&path), text.as_bytes()).unwrap();
}, true)]
#[case::broken_file(|root: &TestRoot| root.write("var/lib/dkms/.cache/status", "{"), false)]
#[case::other_layout(|root: &TestRoot| {
    let trees = Trees::under(root.path());
    write(&trees, &Seen { format: FORMAT - 1, ..Seen::on_disk(&trees) });
}, false)]
fn what_changed_is_looked_at_again(#[case] change: Change, #[case] remarkable: bool) {
    let (root, trees) = machine();
    settle();
    Seen::refresh(&trees).unwrap();
    assert!(in_order(&trees));
    change(&root);
    assert!(!in_order(&trees));
    assert_eq!(status(&trees).contains('('), remarkable, "{}", status(&trees));
    settle();
    Seen::refresh(&trees).unwrap();
    assert_eq!(in_order(&trees), !remarkable);
}

#[test]
fn what_may_still_change_unseen_is_not_kept() {
    let (root, trees) = machine();
    Seen::refresh(&trees).unwrap();
    assert!(!root.exists("var/lib/dkms/.cache"));
}

#[test]
fn what_is_gone_is_forgotten_and_what_stays_is_not_written_again() {
    let (root, trees) = machine();
    settle();
    Seen::refresh(&trees).unwrap();
    let written = || Stamp::of(&[stat_of_file(CWD, &file(&trees)).unwrap()]).0;
    let before = written();
    Seen::refresh(&trees).unwrap();
    assert_eq!(written(), before);
    root.remove("var/lib/dkms/a");
    Seen::refresh(&trees).unwrap();
    assert_eq!(Seen::on_disk(&trees).modules.len(), 0);
}

type Step = fn(&TestRoot);

/// Whatever changes the names in a module's directories, the state is the one that is there.
#[rstest]
#[case::another_kernel(|root: &TestRoot| root.dir("var/lib/dkms/a/1/7.3-arch1/x86_64/module"))]
#[case::another_arch(|root: &TestRoot| root.dir(format!("var/lib/dkms/a/1/{KERNEL}/aarch64/module")))]
#[case::an_arch_in_an_empty_kernel(|root: &TestRoot| root.dir("var/lib/dkms/a/1/7.1-empty/x86_64/module"))]
#[case::another_version(|root: &TestRoot| root.dir("var/lib/dkms/a/2/7.3-arch1/x86_64/module"))]
#[case::another_module(|root: &TestRoot| root.dir("var/lib/dkms/b/1/7.3-arch1/x86_64/module"))]
#[case::unbuilt(|root: &TestRoot| root.remove(format!("var/lib/dkms/a/1/{KERNEL}/x86_64/module")))]
#[case::uninstalled(|root: &TestRoot| root.remove(format!("var/lib/dkms/a/kernel-{KERNEL}-x86_64")))]
#[case::removed(|root: &TestRoot| root.remove("var/lib/dkms/a/1"))]
#[case::source_gone(|root: &TestRoot| root.remove("usr/src/a-1"))]
#[case::link_gone(|root: &TestRoot| root.remove("var/lib/dkms/a/1/source"))]
fn what_was_listed_is_listed_again_when_it_changed(#[case] change: Step) {
    let (root, trees) = machine();
    root.dir("var/lib/dkms/a/1/7.1-empty");
    settle();
    Seen::refresh(&trees).unwrap();
    assert!(Seen::read(&trees).modules.contains_key(&"a".parse().unwrap()));
    let state = || Seen::read(&trees).state(&trees);
    let before = state();
    assert_eq!(before, State::read(&trees));
    change(&root);
    assert_ne!(state(), before);
    assert_eq!(state(), State::read(&trees));
}

#[test]
fn a_module_whose_link_takes_a_way_of_its_own_is_always_listed() {
    let (root, trees) = machine();
    root.remove(format!("var/lib/dkms/a/kernel-{KERNEL}-x86_64"));
    root.link(
        format!("var/lib/dkms/a/kernel-{KERNEL}-x86_64"),
        format!("/srv/a/1/{KERNEL}/x86_64"),
    );
    settle();
    Seen::refresh(&trees).unwrap();
    assert!(Seen::read(&trees).modules.is_empty());
}
