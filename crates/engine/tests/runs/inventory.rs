//! Tests of the inventory: repairing, adopting and removing the objects in a kernel's directory.

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::dkms_tree::TreeState;
use dkms_engine::machine::Placement;
use dkms_engine::plan::{Plan, Request, Verb};
use dkms_engine::status::{self, Filter};
use rstest::rstest;
use testroot::kernel_object;

use crate::fixture::{BUILT, Fixture, K1, K2, PLACED, assert_clean, assert_failed, sync};

const INVENTORY: &str = "usr/lib/modules/7.2.12-arch1-1/.dkms-inventory";

const AUTOINSTALL: Request = Request::Autoinstall { kernels: None, only: false };

/// The request of the boot unit, and of the hook for a transaction that touches no module.
fn nothing() -> Request {
    sync(&[], &[])
}

fn installed_foo() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture
}

/// Deletes the dkms tree or a part of it. The tree's own directory is always kept or created again.
fn delete(fixture: &Fixture, path: &str) {
    fixture.root.remove(path);
    fixture.root.dir("var/lib/dkms");
}

fn placed(fixture: &Fixture) -> Vec<u8> {
    fs::read(fixture.root.at(PLACED)).unwrap()
}

/// Returns an object with a signature, as made by sign-file.
fn signed(object: &[u8]) -> Vec<u8> {
    let signature = b"a signature";
    let length = (signature.len() as u32).to_be_bytes();
    [object, signature, &[0; 8], &length, b"~Module signature appended~\n"].concat()
}

fn assert_nothing_to_do(plan: &Plan) {
    assert!(plan.is_empty() && plan.notes.is_empty(), "{plan}");
}

fn status(fixture: &Fixture) -> String {
    let trees = &fixture.machine().trees;
    let placement = Placement::Fixed("updates/dkms".into());
    let lines = status::lines(trees, &TreeState::read(trees), &placement, &Filter::default());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[rstest]
#[case::emptied(|_| Some(Vec::new()), AUTOINSTALL)]
#[case::truncated(|bytes: Vec<u8>| Some(bytes[..bytes.len() / 2].to_vec()), nothing())]
#[case::zeroes(|bytes: Vec<u8>| Some(vec![0; bytes.len()]), nothing())]
#[case::removed(|_| None, AUTOINSTALL)]
fn damaged_and_missing_objects_are_placed_again(
    #[case] damage: fn(Vec<u8>) -> Option<Vec<u8>>,
    #[case] request: Request,
) {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    match damage(before.clone()) {
        Some(bytes) => fixture.root.write(PLACED, bytes),
        None => fixture.root.remove(PLACED),
    }
    let builds = fixture.builds();
    assert_clean(&fixture.run(&request));
    assert_eq!(placed(&fixture), before);
    assert_eq!(fixture.builds(), builds);
    assert_nothing_to_do(&fixture.plan(&request));
}

#[test]
fn damaged_object_is_placed_again_without_headers() {
    let mut fixture = installed_foo();
    fixture.root.write(PLACED, "");
    fixture.root.remove(format!("usr/lib/modules/{K1}/build"));
    assert_clean(&fixture.run(&nothing()));
    assert!(!placed(&fixture).is_empty());
}

#[rstest]
#[case::from_the_cache(Some(""), true)]
#[case::by_compiling(None, false)]
fn damaged_build_is_restored(#[case] content: Option<&str>, #[case] is_cached: bool) {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    fixture.root.remove(PLACED);
    let stored = format!("{BUILT}/module/foo.ko");
    fixture.root.remove(&stored);
    content.iter().for_each(|text| fixture.root.write(&stored, text));
    if !is_cached {
        fixture.root.remove("var/lib/dkms/.cache/objects");
    }
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(placed(&fixture), before);
    assert_eq!(fs::read(fixture.root.at(stored)).unwrap(), before);
}

#[rstest]
#[case::of_the_module("var/lib/dkms/foo")]
#[case::whole_tree("var/lib/dkms")]
fn object_is_adopted_after_the_dkms_tree_was_deleted(#[case] deleted: &str) {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    delete(&fixture, deleted);
    assert_clean(&fixture.install());
    assert_eq!(placed(&fixture), before);
    assert_eq!(status(&fixture), format!("foo/1.0, {K1}, x86_64: installed\n"));
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/updates")));
}

#[rstest]
#[case::equal(|bytes: &[u8]| bytes.to_vec(), true)]
#[case::signed(signed, true)]
#[case::of_another_version(|_: &[u8]| kernel_object(K1, "foo", &["version=9"]), false)]
#[case::damaged(|bytes: &[u8]| bytes[..40].to_vec(), false)]
fn unowned_object_is_adopted_or_replaced(
    #[case] change: fn(&[u8]) -> Vec<u8>,
    #[case] stays: bool,
) {
    let mut fixture = installed_foo();
    let object = change(&placed(&fixture));
    // Now nothing in the dkms tree or the inventory lists the object.
    fixture.root.remove("var/lib/dkms/foo");
    fixture.root.remove(INVENTORY);
    fixture.root.write(PLACED, &object);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(placed(&fixture) == object, stays);
    assert_nothing_to_do(&fixture.plan(&sync(&["foo-1.0"], &[K1])));
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.root.exists(PLACED));
}

#[test]
fn object_of_a_package_is_never_touched() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["foo", "bar"]);
    let object = kernel_object(K1, "foo", &["version=0.1"]);
    fixture.root.write(PLACED, &object);
    fixture.root.package("foo-bin", "1-1", &[PLACED]);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.output.lines[0].contains("belongs to the package foo-bin"));
    fixture.change = |machine| machine.options.force_install = true;
    assert_clean(&fixture.install());
    assert_eq!(placed(&fixture), object);
    assert!(fixture.installed(K1, "bar.ko"));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert_eq!(placed(&fixture), object);
    assert!(!fixture.installed(K1, "bar.ko"));
}

/// pacman has overwritten our object with that of a package, which has been changed since.
#[rstest]
#[case::signed(signed)]
#[case::damaged(|bytes: &[u8]| bytes[..40].to_vec())]
fn listed_object_of_a_package_is_never_touched(#[case] change: fn(&[u8]) -> Vec<u8>) {
    let mut fixture = installed_foo();
    let object = change(&placed(&fixture));
    fixture.root.write(PLACED, &object);
    fixture.root.package("foo-bin", "1-1", &[PLACED]);
    fixture.run(&Request::Autoinstall { kernels: None, only: false });
    assert_eq!(placed(&fixture), object);
    fixture.change = |machine| machine.options.force_install = true;
    fixture.install();
    assert_eq!(placed(&fixture), object);
    fixture.command(Verb::Remove, "foo/1.0");
    assert_eq!(placed(&fixture), object);
}

#[rstest]
#[case::in_place(None)]
#[case::uncompressed(Some("gz"))]
fn object_signed_by_hand_stays_and_is_removed_with_the_module(#[case] suffix: Option<&str>) {
    let object = signed(&placed(&installed_foo()));
    let mut fixture = Fixture::new();
    if let Some(suffix) = suffix {
        fixture.root.kernel(K1).headers().compressed(suffix);
    }
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove(PLACED.to_owned() + &suffix.map(|it| format!(".{it}")).unwrap_or_default());
    let place = PLACED;
    fixture.root.write(place, &object);
    for request in [AUTOINSTALL, nothing(), sync(&["foo-1.0"], &[K1])] {
        assert_clean(&fixture.run(&request));
        assert_nothing_to_do(&fixture.plan(&request));
        assert_eq!(fs::read(fixture.root.at(place)).unwrap(), object);
    }
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.root.exists(place));
    assert!(!fixture.root.exists(INVENTORY));
}

/// Only a package that still owns the object keeps it there.
#[rstest]
#[case::signed(|bytes: &[u8]| signed(bytes), false)]
#[case::another_object(|_: &[u8]| kernel_object(K1, "foo", &["version=9"]), false)]
#[case::another_object_of_a_package(|_: &[u8]| kernel_object(K1, "foo", &["version=9"]), true)]
fn changed_object_goes_with_its_kernel(
    #[case] change: fn(&[u8]) -> Vec<u8>,
    #[case] is_owned: bool,
) {
    let mut fixture = installed_foo();
    fixture.root.write(PLACED, change(&placed(&fixture)));
    if is_owned {
        fixture.root.package("foo-bin", "1-1", &[PLACED]);
    }
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        fixture.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K1, K2]));
    assert_eq!(fixture.root.exists(PLACED), is_owned);
    assert_eq!(fixture.root.exists(format!("usr/lib/modules/{K1}")), is_owned);
    assert!(fixture.installed(K2, "foo.ko"));
}

#[test]
fn object_replaced_by_hand_stays_and_is_reported_once() {
    let mut fixture = installed_foo();
    let object = kernel_object(K1, "foo", &["version=9"]);
    fixture.root.write(PLACED, &object);
    let plan = fixture.plan(&AUTOINSTALL);
    let notes: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
    assert!(notes.len() == 1 && notes[0].contains("has been changed since"), "{notes:?}");
    assert!(!plan.to_string().contains("\ninstall"), "{plan}");
    assert_clean(&fixture.run(&AUTOINSTALL));
    assert_eq!(placed(&fixture), object);
    assert_nothing_to_do(&fixture.plan(&AUTOINSTALL));
    // The object also stays when the module is upgraded.
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0");
    fixture.output.lines.clear();
    assert_clean(&fixture.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert_eq!(placed(&fixture), object);
    assert!(fixture.output.lines[0].contains("not replaced"), "{:?}", fixture.output.lines);
    assert_nothing_to_do(&fixture.plan(&sync(&["foo-2.0"], &[K1])));
    fixture.change = |machine| {
        machine.options.force = true;
        machine.options.force_install = true;
    };
    assert_clean(&fixture.command(Verb::Install, "foo/2.0"));
    assert_ne!(placed(&fixture), object);
}

/// Installs the modules `order`, which all contain the object `same`.
fn with_same_object(order: &[&str]) -> Fixture {
    let mut fixture = Fixture::new();
    for name in order {
        fixture.root.source(name, "1.0").objects(&["same"]);
        assert_clean(&fixture.sync(&[&format!("{name}-1.0")], &[]));
    }
    fixture
}

fn source_of_same(fixture: &Fixture) -> String {
    let object = fixture.root.at(PLACED.replace("foo.ko", "same.ko"));
    let object = fs::read(object).unwrap_or_default();
    let text = String::from_utf8_lossy(&object).into_owned();
    let start = text.find("srcversion=").map_or(0, |at| at + "srcversion=".len());
    text[start..].split('\0').next().unwrap_or_default().to_owned()
}

#[rstest]
#[case::top_first(&["top", "middle", "bottom"], &[true, true, false])]
#[case::bottom_first(&["bottom", "middle", "top"], &[true, true, false])]
#[case::middle_first(&["middle", "top", "bottom"], &[true, true, false])]
fn object_below_another_one_is_placed_again(#[case] leave: &[&str], #[case] there: &[bool]) {
    let order = ["bottom", "middle", "top"];
    let mut fixture = Fixture::new();
    let mut sources = Vec::new();
    for name in order {
        fixture.root.source(name, "1.0").objects(&["same"]);
        assert_clean(&fixture.sync(&[&format!("{name}-1.0")], &[]));
        sources.push((name, source_of_same(&fixture)));
    }
    assert_eq!(sources.iter().map(|(_, source)| source).collect::<BTreeSet<_>>().len(), 3);
    // Each module counts as installed, so there is nothing to do.
    assert_nothing_to_do(&fixture.plan(&AUTOINSTALL));
    assert_nothing_to_do(&fixture.plan(&nothing()));
    for (name, is_there) in leave.iter().zip(there) {
        fixture.root.remove(format!("usr/src/{name}-1.0"));
        assert_clean(&fixture.sync(&[&format!("{name}-1.0")], &[]));
        sources.retain(|(other, _)| other != name);
        assert_eq!(fixture.installed(K1, "same.ko"), *is_there);
        if let Some((_, source)) = sources.last() {
            assert_eq!(source_of_same(&fixture), *source);
        }
    }
    assert!(!fixture.root.exists(INVENTORY));
}

#[test]
fn upgrade_of_the_module_below_leaves_the_one_on_top() {
    let mut fixture = with_same_object(&["bottom", "top"]);
    let top = source_of_same(&fixture);
    fixture.root.remove("usr/src/bottom-1.0");
    fixture.root.source("bottom", "2.0").objects(&["same"]);
    assert_clean(&fixture.sync(&["bottom-1.0", "bottom-2.0"], &[]));
    assert_eq!(source_of_same(&fixture), top);
    fixture.root.remove("usr/src/top-1.0");
    assert_clean(&fixture.sync(&["top-1.0"], &[]));
    let object = fs::read(fixture.root.at(PLACED.replace("foo.ko", "same.ko"))).unwrap();
    assert!(String::from_utf8_lossy(&object).contains("version=2.0"));
}

#[rstest]
#[case::lost_tree("var/lib/dkms", "bar")]
#[case::lost_module("var/lib/dkms/foo", "foo")]
fn next_transaction_restores_what_the_dkms_tree_has_lost(
    #[case] lost: &str,
    #[case] touched: &str,
) {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    delete(&fixture, lost);
    let missing = "(Built modules are missing in the kernel modules folder)";
    assert_eq!(status(&fixture), format!("foo/1.0, {K1}, x86_64: installed {missing}\n"));
    if touched != "foo" {
        fixture.root.source(touched, "1.0");
    }
    assert_clean(&fixture.sync(&[&format!("{touched}-1.0")], &[]));
    assert!(status(&fixture).ends_with(&format!("foo/1.0, {K1}, x86_64: installed\n")));
    assert_eq!(placed(&fixture), before);
}

#[test]
fn module_that_the_dkms_tree_has_lost_can_be_removed() {
    let mut fixture = installed_foo();
    delete(&fixture, "var/lib/dkms");
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists(PLACED) && !fixture.root.exists(INVENTORY));
    assert_eq!(status(&fixture), "");
}

#[test]
fn module_of_another_dkms_tree_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.dir("srv/tree");
    fixture.root.link("srv/link", "tree");
    fixture.change = |machine| machine.trees.dkms = machine.trees.root.join("srv/link");
    assert_clean(&fixture.install());
    fixture.change = |_| {};
    assert_eq!(status(&fixture), "");
    assert_nothing_to_do(&fixture.plan(&nothing()));
    fixture.change = |machine| machine.trees.dkms = machine.trees.root.join("srv/tree");
    assert_eq!(status(&fixture), format!("foo/1.0, {K1}, x86_64: installed\n"));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists(PLACED) && !fixture.root.exists(INVENTORY));
}

#[rstest]
#[case::with_its_build(false)]
#[case::without_its_build(true)]
fn leftovers_of_a_removed_kernel_go_with_the_module(#[case] lost: bool) {
    let mut fixture = installed_foo();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    // pacman removed the kernel while alpm-dkms was not installed.
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        fixture.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
    if lost {
        delete(&fixture, "var/lib/dkms");
    }
    assert!(status(&fixture).starts_with(&format!("foo/1.0, {K1}, x86_64: installed")));
    let command = Request::Command {
        verb: Verb::Remove,
        module: "foo/1.0".parse().unwrap(),
        kernels: None,
        force: false,
    };
    assert_clean(&fixture.run(&command));
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}")), "{}", status(&fixture));
    assert_eq!(status(&fixture), "");
}

#[test]
fn half_finished_placing_is_repaired() {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    // The run was killed before it renamed the objects, so another version's objects are in place.
    let text = fixture.root.read(INVENTORY);
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("stat")).collect();
    let text = text.join("\n").replace("\"intact\"", "\"intended\"");
    fixture.root.write(INVENTORY, text);
    fixture.root.write(PLACED, kernel_object(K1, "foo", &["version=0.9"]));
    assert_clean(&fixture.run(&nothing()));
    assert_eq!(placed(&fixture), before);
    assert_nothing_to_do(&fixture.plan(&nothing()));
}

#[test]
fn deleting_a_build_that_was_never_placed_leaves_the_installed_version() {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    fixture.root.source("foo", "2.0");
    assert_clean(&fixture.command(Verb::Build, "foo/2.0"));
    // The run was killed after it added the objects of 2.0 to the inventory.
    let text = fixture.root.read(INVENTORY).replace("foo/1.0", "foo/2.0");
    fixture.root.write(INVENTORY, text.replace("\"intact\"", "\"intended\"").replace("stat", "x"));
    let changed = text.lines().find(|line| line.starts_with("digest")).unwrap().to_owned();
    let other = changed.replace(['1', '2', '3'], "4");
    let text = fixture.root.read(INVENTORY).replace(&changed, &other);
    fixture.root.write(INVENTORY, text);
    assert_clean(&fixture.command(Verb::Unbuild, "foo/2.0"));
    assert_eq!(placed(&fixture), before);
    assert_nothing_to_do(&fixture.plan(&nothing()));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists(PLACED));
}

#[rstest]
#[case::newer("format = 2\n[[thing]]\nname = \"foo\"\n")]
#[case::unreadable("not a format")]
fn inventory_in_another_format_is_kept(#[case] text: &str) {
    let mut fixture = installed_foo();
    let before = placed(&fixture);
    fixture.root.write(INVENTORY, text);
    assert_nothing_to_do(&fixture.plan(&nothing()));
    assert_clean(&fixture.run(&sync(&["foo-1.0"], &[K1])));
    assert_eq!(placed(&fixture), before);
    assert_eq!(fixture.root.read(format!("{INVENTORY}.unread")), text);
    assert!(fixture.root.read(INVENTORY).contains("foo/1.0"));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists(PLACED));
}

#[test]
fn explicit_installation_of_the_same_object_is_refused_if_it_is_not_newer() {
    let mut fixture = with_same_object(&["bottom"]);
    fixture.root.source("other", "0.5").objects(&["same"]);
    fixture.change = |machine| machine.options.module = "other/0.5".parse().ok();
    let message = assert_failed(&fixture.command(Verb::Install, "other/0.5"), 6);
    assert!(message.contains("is newer"), "{message}");
}

#[test]
fn module_that_is_installed_again_is_on_top() {
    let mut fixture = with_same_object(&["bottom", "top"]);
    let top = source_of_same(&fixture);
    fixture.change = |machine| {
        machine.options.module = "bottom/1.0".parse().ok();
        machine.options.force = true;
        machine.options.force_install = true;
    };
    assert_clean(&fixture.command(Verb::Install, "bottom/1.0"));
    assert_ne!(source_of_same(&fixture), top);
    fixture.change = |_| {};
    fixture.root.remove("usr/src/bottom-1.0");
    assert_clean(&fixture.sync(&["bottom-1.0"], &[]));
    assert_eq!(source_of_same(&fixture), top);
}
