//! Tests of the links and directories that are removed with a module or a kernel.

use std::os::unix::fs::symlink;

use rstest::rstest;

use super::*;

fn machine() -> (tempfile::TempDir, Machine) {
    let root = tempfile::tempdir().unwrap();
    let mut machine = Machine::for_hook(root.path());
    machine.arch = "x86_64".parse().unwrap();
    (root, machine)
}

#[rstest]
#[case::this_version("1.0/7.2/x86_64", true)]
#[case::absolute("/var/lib/dkms/foo/1.0/7.2/x86_64", true)]
#[case::other_version("2.0/7.2/x86_64", false)]
#[case::other_kernel("1.0/7.3/x86_64", false)]
#[case::other_architecture("1.0/7.2/aarch64", false)]
fn the_link_names_the_installed_version(#[case] target: &str, #[case] want: bool) {
    let (_root, machine) = machine();
    let (id, kernel) = ("foo/1.0".parse().unwrap(), "7.2".parse().unwrap());
    assert!(!is_installed(&machine, &id, &kernel));
    let link = machine.trees.installed_link(&id.name, &kernel, &machine.arch);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(target, link).unwrap();
    assert_eq!(is_installed(&machine, &id, &kernel), want);
}

#[test]
fn only_dangling_links_to_builds_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("1.0/7.2/x86_64")).unwrap();
    symlink("1.0/7.2/x86_64", path("kernel-7.2-x86_64")).unwrap();
    fs::write(path("kernel-7.4-x86_64"), "a file").unwrap();
    for dangling in ["kernel-7.3-x86_64", "kernel-7.3-aarch64", "other-7.3-x86_64"] {
        symlink("1.0/7.3/x86_64", path(dangling)).unwrap();
    }
    remove_dangling_links(dir.path(), &"x86_64".parse().unwrap()).unwrap();
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let left = ["1.0", "kernel-7.2-x86_64", "kernel-7.3-aarch64", "kernel-7.4-x86_64"];
    assert_eq!(names, [&left[..], &["other-7.3-x86_64"]].concat());
    remove_dangling_links(&path("missing"), &"x86_64".parse().unwrap()).unwrap();
}

#[test]
fn the_directory_that_a_link_leads_to_is_not_swept() {
    let (_root, machine) = machine();
    let (kernel, other) = ("7.2".parse().unwrap(), "7.3".parse().unwrap());
    let (link, dir) = (machine.trees.kernel(&kernel), machine.trees.kernel(&other));
    fs::create_dir_all(&dir).unwrap();
    symlink(&dir, &link).unwrap();
    assert_eq!(sweep(&machine, &kernel).unwrap(), None);
    assert!(link.is_dir());
    assert_eq!(sweep(&machine, &other).unwrap(), None);
    assert!(!dir.exists());
    assert_eq!(sweep(&machine, &other).unwrap(), None);
}

#[test]
fn only_a_link_points_into_the_dkms_tree() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Path::new("/var/lib/dkms/foo");
    let file = |name: &str| dir.path().join(name);
    symlink("/var/lib/dkms/foo/1.0/7.2/x86_64/module/foo.ko", file("ours")).unwrap();
    symlink("/var/lib/dkms/bar/1.0/7.2/x86_64/module/foo.ko", file("other")).unwrap();
    fs::write(file("file"), "").unwrap();
    let found = ["ours", "other", "file"].map(|name| points_below(&file(name), tree));
    assert_eq!(found, [true, false, false]);
}
