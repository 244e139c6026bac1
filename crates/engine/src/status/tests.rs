//! Tests of the status of trees in various states. dkms prints the same texts.

use super::*;
use rstest::rstest;
use std::os::unix::fs::symlink;

use crate::dkms_tree::{BuiltObject, TreeState};
use crate::machine::Placement;
use crate::machine::Trees;
use crate::names::ModuleId;
use crate::os::digest::Digest;
use crate::os::symlinks;

const KERNEL: &str = "7.2-arch1";

/// A machine whose dkms tree was made by dkms itself, so that builds have no records.
struct TestMachine {
    _dir: tempfile::TempDir,
    trees: Trees,
}

impl TestMachine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { trees: Trees::under(dir.path()), _dir: dir }
    }

    fn add(&self, id: &str) {
        let id: ModuleId = id.parse().unwrap();
        fs::create_dir_all(self.trees.source.join(id.source_dir())).unwrap();
        fs::create_dir_all(self.trees.build(&id)).unwrap();
        let source = self.trees.source.join(id.source_dir());
        let text = symlinks::text_for(&self.trees.root, &source);
        symlink(text, self.trees.source_link(&id)).unwrap();
    }

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a built object that contains the version of its module.
    fn build(&self, id: &str, kernel: &str, object: &str) {
        let content = id.split('/').nth(1).unwrap();
        Self::write(
            &self.trees.dkms.join(format!("{id}/{kernel}/x86_64/module/{object}")),
            content,
        );
    }

    /// Marks a version as installed, and writes an object with `content` to `place` in the kernel's
    /// directory.
    fn install(&self, id: &str, place: &str, content: &str) {
        let (name, version) = id.split_once('/').unwrap();
        let link = self.trees.dkms.join(format!("{name}/kernel-{KERNEL}-x86_64"));
        symlink(format!("{version}/{KERNEL}/x86_64"), link).unwrap();
        Self::write(&self.trees.install.join(KERNEL).join(place), content);
    }

    fn status(&self, placement: &Placement, filter: &Filter) -> Vec<Line> {
        lines(&self.trees, &TreeState::read(&self.trees), placement, filter)
    }

    fn text(&self, filter: &Filter) -> String {
        let lines = self.status(&Placement::Fixed("updates/dkms".into()), filter);
        lines.iter().map(Line::to_string).collect::<Vec<_>>().join("\n")
    }
}

fn kernel(kernel: &str) -> KernelFilter {
    KernelFilter { kernel: Some(Pattern::new(kernel)), arch: None }
}

fn machine() -> TestMachine {
    let machine = TestMachine::new();
    for id in ["a/1.10", "a/1.9", "b/1", "c/1"] {
        machine.add(id);
    }
    machine.build("a/1.9", KERNEL, "a.ko.zst");
    machine.build("a/1.10", KERNEL, "a.ko.zst");
    machine.build("a/1.9", "6.12.5-lts", "a.ko.zst");
    machine.build("a/1.9", "custom", "a.ko");
    machine.install("a/1.9", "updates/dkms/a.ko.zst", "1.9");
    machine.build("b/1", KERNEL, "b.ko.zst");
    fs::remove_dir(machine.trees.source.join("c-1")).unwrap();
    machine
}

#[test]
fn lists_versions_and_kernels_in_dkms_order() {
    insta::assert_snapshot!(machine().text(&Filter::default()), @"
    a/1.10, 7.2-arch1, x86_64: built
    a/1.9, 6.12.5-lts, x86_64: built
    a/1.9, 7.2-arch1, x86_64: installed
    b/1, 7.2-arch1, x86_64: built
    c/1: broken
    ");
}

#[test]
fn shows_a_version_as_added_if_the_filter_hides_all_its_builds() {
    let filter = Filter { kernels: vec![kernel("6.*"), kernel("custom")], ..Filter::default() };
    insta::assert_snapshot!(machine().text(&filter), @"
    a/1.10: added
    a/1.9, 6.12.5-lts, x86_64: built
    b/1: added
    c/1: broken
    a/1.10: added
    a/1.9, custom, x86_64: built
    b/1: added
    c/1: broken
    ");
}

#[rstest]
#[case::module(Some("[bc]"), None, "b/1, 7.2-arch1, x86_64: built\nc/1: broken")]
#[case::version(None, Some("1.1*"), "a/1.10, 7.2-arch1, x86_64: built")]
#[case::unknown(Some("zfs"), None, "")]
fn filters_modules(
    #[case] module: Option<&str>,
    #[case] version: Option<&str>,
    #[case] want: &str,
) {
    let filter = Filter {
        module: module.map(Pattern::new),
        version: version.map(Pattern::new),
        kernels: Vec::new(),
    };
    assert_eq!(machine().text(&filter), want);
}

#[test]
fn filters_architectures() {
    let arch = |arch: &str| KernelFilter { kernel: None, arch: Some(Pattern::new(arch)) };
    let filter =
        Filter { module: Some(Pattern::new("b")), version: None, kernels: vec![arch("aarch64")] };
    assert_eq!(machine().text(&filter), "b/1: added");
    let filter = Filter { kernels: vec![arch("x86*")], ..filter };
    assert_eq!(machine().text(&filter), "b/1, 7.2-arch1, x86_64: built");
}

#[rstest]
#[case::same("updates/dkms/a.ko.zst", "1", "")]
#[case::another_directory("kernel/drivers/x/a.ko.zst", "1", "")]
#[case::other_content(
    "updates/dkms/a.ko.zst",
    "2",
    " (Differences between built and installed modules)"
)]
#[case::other_compression(
    "updates/dkms/a.ko.xz",
    "1",
    " (Differences between built and installed modules)"
)]
#[case::headers_are_not_searched(
    "build/a.ko.zst",
    "1",
    " (Differences between built and installed modules)"
)]
fn compares_built_and_installed_objects(
    #[case] place: &str,
    #[case] content: &str,
    #[case] want: &str,
) {
    let machine = TestMachine::new();
    machine.add("a/1");
    machine.build("a/1", KERNEL, "a.ko.zst");
    machine.install("a/1", place, content);
    let want = format!("a/1, {KERNEL}, x86_64: installed{want}");
    assert_eq!(machine.text(&Filter::default()), want);
}

#[test]
fn reports_a_build_without_objects() {
    let machine = TestMachine::new();
    machine.add("a/1");
    machine.build("a/1", KERNEL, "Module.symvers");
    let want = format!(
        "a/1, {KERNEL}, x86_64: built (Built modules are missing in the kernel modules folder)"
    );
    assert_eq!(machine.text(&Filter::default()), want);
}

#[test]
fn follows_links_to_objects() {
    let machine = TestMachine::new();
    machine.add("a/1");
    machine.build("a/1", KERNEL, "a.ko.zst");
    machine.install("a/1", "updates/dkms/x", "");
    let stored = format!("/var/lib/dkms/a/1/{KERNEL}/x86_64/module/a.ko.zst");
    symlink(stored, machine.trees.install.join(KERNEL).join("updates/dkms/a.ko.zst")).unwrap();
    assert_eq!(machine.text(&Filter::default()), format!("a/1, {KERNEL}, x86_64: installed"));
}

#[test]
fn line_can_have_several_remarks() {
    let machine = TestMachine::new();
    machine.add("a/1");
    machine.build("a/1", KERNEL, "a.ko.zst");
    machine.install("a/1", "updates/dkms/a.ko.zst", "2");
    fs::create_dir_all(machine.trees.dkms.join(format!("a/original_module/{KERNEL}/x86_64")))
        .unwrap();
    let lines = machine.status(&Placement::FromConf, &Filter::default());
    assert_eq!(
        lines[0].to_string(),
        "a/1, 7.2-arch1, x86_64: installed (Original modules exist) \
         (Differences between built and installed modules)"
    );
    let json = serde_json::to_value(&lines).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "state": "installed", "module": "a", "version": "1", "kernel": KERNEL,
            "arch": "x86_64", "remarks": ["original-modules-exist", "differences"],
        }])
    );
}

/// Writes the record of the build of `a/1`, which lists the given objects.
fn write_record(machine: &TestMachine, objects: &[&str]) {
    let digest = Digest::of_bytes(b"");
    let object = |name: &&str| {
        let (name, location) = ((*name).into(), "updates/dkms".into());
        BuiltObject { name, digest, location, built_for: None }
    };
    let objects = objects.iter().map(object).collect();
    let record = Record { objects, ..Record::sample("a/1", KERNEL, "") };
    let path = Record::path(&machine.trees, &record.module, &record.kernel, &record.arch);
    record.write(&path).unwrap();
}

#[rstest]
#[case::complete(&["a.ko.zst"], "updates/dkms/a.ko.zst", "")]
#[case::one_missing(&["a.ko.zst", "lost.ko.zst"], "updates/dkms/a.ko.zst", " (Built modules are missing in the kernel modules folder)")]
#[case::moved(&["a.ko.zst"], "extra/a.ko.zst", " (Differences between built and installed modules)")]
fn record_determines_the_expected_objects(
    #[case] objects: &[&str],
    #[case] place: &str,
    #[case] want: &str,
) {
    let machine = TestMachine::new();
    machine.add("a/1");
    machine.build("a/1", KERNEL, "a.ko.zst");
    machine.install("a/1", place, "1");
    write_record(&machine, objects);
    let want = format!("a/1, {KERNEL}, x86_64: installed{want}");
    assert_eq!(machine.text(&Filter::default()), want);
}

#[test]
fn broken_module_has_advice() {
    let machine = TestMachine::new();
    machine.add("a/1");
    fs::remove_dir(machine.trees.source.join("a-1")).unwrap();
    let lines = machine.status(&Placement::FromConf, &Filter::default());
    assert_eq!(
        serde_json::to_string(&lines).unwrap(),
        r#"[{"state":"broken","module":"a","version":"1"}]"#
    );
    assert!(lines[0].advice(&machine.trees).unwrap().starts_with("a/1: broken: source missing"));
}
