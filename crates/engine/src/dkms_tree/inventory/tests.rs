//! Tests of the list of objects, and of its file.

use rstest::rstest;

use super::*;
use crate::dkms_tree::BuiltObject;
use crate::names::Arch;

const PATH: &str = "updates/dkms/a.ko";

fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

fn kernel() -> KernelRelease {
    "7.2".parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of_bytes(text.as_bytes())
}

/// The object of `module` at `path`. Its content is the module's name.
fn placed(module: &str, path: &str) -> Placed {
    let (location, name) = path.rsplit_once('/').unwrap();
    let object = BuiltObject {
        name: name.to_owned(),
        digest: digest(module),
        location: location.to_owned(),
        built_for: None,
    };
    Placed::intended(&id(module), &Arch::of_this_machine(), &object, None)
}

/// The empty inventory of a kernel in a temporary root.
fn inventory() -> (tempfile::TempDir, Trees, Inventory) {
    let root = tempfile::tempdir().unwrap();
    let trees = Trees::under(root.path());
    fs::create_dir_all(trees.kernel(&kernel()).join("updates/dkms")).unwrap();
    let inventory = Inventory::read(&trees, &kernel());
    (root, trees, inventory)
}

fn listed(inventory: &Inventory) -> Vec<(String, String)> {
    inventory.objects().map(|it| (it.module.to_string(), it.path.clone())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(id, path)| ((*id).to_owned(), (*path).to_owned())).collect()
}

#[rstest]
#[case::absolute("/etc/a.ko")]
#[case::above("updates/../../7.3/a.ko")]
fn a_path_outside_the_directory_is_not_ours(#[case] path: &str) {
    let (_root, trees, mut inventory) = inventory();
    inventory.list(placed("foo/1", PATH));
    inventory.write().unwrap();
    let file = trees.kernel(&kernel()).join(INVENTORY);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!listed(&Inventory::read(&trees, &kernel())).is_empty());
    fs::write(&file, text.replace(PATH, path)).unwrap();
    assert_eq!(listed(&Inventory::read(&trees, &kernel())), []);
}

#[test]
fn a_new_version_takes_the_position_of_the_old_one() {
    let (_root, _trees, mut inventory) = inventory();
    inventory.list(placed("low/1", PATH));
    inventory.list(placed("low/1", "updates/dkms/b.ko"));
    inventory.list(placed("top/1", PATH));
    inventory.list(placed("low/2", "updates/dkms/a.ko.zst"));
    let want = pairs(&[
        ("low/2", "updates/dkms/a.ko.zst"),
        ("low/1", "updates/dkms/b.ko"),
        ("top/1", PATH),
    ]);
    assert_eq!(listed(&inventory), want);
    assert_eq!(inventory.top(PATH).unwrap().module, id("top/1"));
    let on_top: Vec<&ModuleId> = inventory.on_top().map(|it| &it.module).collect();
    assert_eq!(on_top, [&id("low/1"), &id("top/1")]);
    let low = id("low/2");
    let of: Vec<&str> = inventory.of(&low).map(|it| it.path.as_str()).collect();
    assert_eq!(of, ["updates/dkms/a.ko.zst"]);
    assert_eq!(inventory.modules(), [&id("low/1"), &id("low/2"), &id("top/1")].into());
}

#[test]
fn finds_the_object_of_any_version_of_a_module() {
    let (_root, _trees, mut inventory) = inventory();
    inventory.list(placed("low/1", PATH));
    inventory.list(placed("top/1", PATH));
    let of = |name: &str, path: &str| {
        inventory.of_module_at(&name.parse().unwrap(), path).map(|it| it.module.to_string())
    };
    assert_eq!(of("low", "updates/dkms/a.ko.xz").as_deref(), Some("low/1"));
    assert_eq!(of("top", PATH).as_deref(), Some("top/1"));
    assert_eq!(of("low", "updates/dkms/b.ko"), None);
    assert_eq!(of("other", PATH), None);
}

#[test]
fn one_object_is_struck_raised_or_renamed() {
    let (_root, _trees, mut inventory) = inventory();
    for (module, path) in [("low/1", PATH), ("low/1", "updates/dkms/b.ko"), ("top/1", PATH)] {
        inventory.list(placed(module, path));
    }
    let before = inventory.clone();
    inventory.raise(&id("low/1"), "updates/dkms/a.ko.gz");
    let raised = [("low/1", "updates/dkms/b.ko"), ("top/1", PATH), ("low/1", PATH)];
    assert_eq!(listed(&inventory), pairs(&raised));
    inventory.strike(&id("low/1"), "updates/dkms/a.ko.gz");
    assert_eq!(listed(&inventory), pairs(&raised[..2]));
    inventory.strike(&id("low/2"), "updates/dkms/b.ko");
    inventory.strike(&id("low/1"), "updates/dkms/c.ko");
    assert_eq!(listed(&inventory), pairs(&raised[..2]));
    inventory = before;
    assert!(!inventory.rename(&id("other/1"), &id("new/1")));
    assert!(inventory.rename(&id("low/1"), &id("new/1")));
    let renamed = [("new/1", PATH), ("new/1", "updates/dkms/b.ko"), ("top/1", PATH)];
    assert_eq!(listed(&inventory), pairs(&renamed));
}

#[test]
fn objects_are_assumed_only_for_a_module_without_any() {
    let (_root, _trees, mut inventory) = inventory();
    inventory.list(placed("top/1", PATH));
    inventory.tree = Some("/srv/tree".into());
    assert!(inventory.assume(&id("low/1"), [placed("low/1", PATH)]));
    assert_eq!(listed(&inventory), pairs(&[("low/1", PATH), ("top/1", PATH)]));
    let tree = inventory.objects().next().unwrap().tree.clone();
    assert_eq!(tree.as_deref(), Some(Path::new("/srv/tree")));
    assert!(!inventory.assume(&id("low/2"), [placed("low/2", "updates/dkms/b.ko")]));
    assert_eq!(inventory.objects().count(), 2);
    inventory.list(placed("new/1", "updates/dkms/c.ko"));
    assert_eq!(inventory.objects().last().unwrap().tree, tree);
    assert_eq!(inventory.modules(), [&id("low/1"), &id("new/1")].into());
}

#[rstest]
#[case::unchanged(|_: &mut Inventory, _: &Path| {}, true)]
#[case::of_another_module(|it: &mut Inventory, _: &Path| it.objects[0].module = id("b/1"), false)]
#[case::of_another_build(|it: &mut Inventory, _: &Path| it.objects[0].digest = digest("x"), false)]
#[case::other_compression(|it: &mut Inventory, _: &Path| it.objects[0].path += ".xz", false)]
#[case::resigned(
    |it: &mut Inventory, _: &Path| it.objects[0].condition = Condition::Resigned,
    false
)]
#[case::replaced(|_: &mut Inventory, file: &Path| fs::write(file, "another").unwrap(), false)]
#[case::never_placed(
    |it: &mut Inventory, file: &Path| {
        it.objects[0].stat = None;
        fs::remove_file(file).unwrap();
    },
    false
)]
fn only_an_unchanged_object_is_intact(
    #[case] change: fn(&mut Inventory, &Path),
    #[case] want: bool,
) {
    let (_root, trees, mut inventory) = inventory();
    let file = inventory.dir().join(PATH);
    fs::write(&file, "a/1").unwrap();
    inventory.list(placed("a/1", PATH));
    let is_intact = |it: &Inventory| it.has_intact(&trees, &id("a/1"), PATH, &digest("a/1"));
    assert!(!is_intact(&inventory), "it is only intended");
    inventory.mark_placed(&trees, &id("a/1"), "updates/dkms/b.ko");
    inventory.mark_placed(&trees, &id("b/1"), PATH);
    assert!(!is_intact(&inventory), "another object has been placed");
    inventory.mark_placed(&trees, &id("a/1"), PATH);
    change(&mut inventory, &file);
    assert_eq!(is_intact(&inventory), want);
}

#[test]
fn only_the_object_on_top_is_examined() {
    let (root, _trees, mut inventory) = inventory();
    let machine = Machine::for_hook(root.path());
    fs::write(inventory.dir().join(PATH), "top/1").unwrap();
    inventory.list(placed("low/1", PATH));
    inventory.list(placed("top/1", PATH));
    assert!(inventory.examine(&machine, &kernel()));
    let conditions: Vec<Condition> = inventory.objects().map(|it| it.condition).collect();
    assert_eq!(conditions, [Condition::Intended, Condition::Intact]);
    assert!(!inventory.examine(&machine, &kernel()), "nothing has changed");
}

#[test]
fn the_file_exists_only_while_it_lists_objects() {
    let (_root, trees, mut inventory) = inventory();
    inventory.list(placed("a/1", PATH));
    inventory.write().unwrap();
    let read = Inventory::read(&trees, &kernel());
    assert_eq!(read, inventory);
    inventory.strike(&id("a/1"), PATH);
    inventory.write().unwrap();
    assert!(!inventory.dir().join(INVENTORY).exists());
    assert_eq!(Inventory::read(&trees, &kernel()), inventory);
}

#[rstest]
#[case::default("var/lib/dkms", None)]
#[case::link_to_the_default("srv/link", None)]
#[case::another("srv/tree", Some("/srv/tree"))]
fn only_another_tree_than_the_default_is_named(#[case] tree: &str, #[case] want: Option<&str>) {
    let (root, mut trees, _) = inventory();
    for dir in ["var/lib/dkms", "srv/tree"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("/var/lib/dkms", root.path().join("srv/link")).unwrap();
    trees.dkms = root.path().join(tree);
    let mut inventory = Inventory::read(&trees, &kernel());
    inventory.list(placed("a/1", PATH));
    assert_eq!(inventory.objects().next().unwrap().tree.as_deref(), want.map(Path::new));
}

#[test]
fn a_file_that_cannot_be_read_is_kept() {
    let (_root, trees, empty) = inventory();
    let file = empty.dir().join(INVENTORY);
    fs::create_dir(&file).unwrap();
    let mut inventory = Inventory::read(&trees, &kernel());
    inventory.list(placed("a/1", PATH));
    inventory.write().unwrap();
    assert!(file.is_file() && empty.dir().join(format!("{INVENTORY}{UNREAD}")).is_dir());
    // A file in place of a kernel's directory contains no inventory.
    let other: KernelRelease = "7.3".parse().unwrap();
    fs::write(trees.kernel(&other), "").unwrap();
    assert!(!Inventory::read(&trees, &other).is_unread);
    assert!(!Inventory::read(&trees, &"7.4".parse().unwrap()).is_unread);
}
