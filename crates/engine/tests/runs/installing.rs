//! Tests of adding, installing, upgrading and removing modules.

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::plan::{Request, Verb};

use rstest::rstest;
use testroot::kernel_object;

use crate::fixture::{
    BUILT, Fixture, K1, K2, PLACED, assert_clean, assert_failed, id, kernel, sync,
};

#[test]
fn module_is_built_and_installed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(fixture.root.calls("depmod").len(), 1);
    insta::assert_snapshot!(fixture.tree());
}

#[test]
fn build_phases_are_reported() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("PRE_BUILD=\"pre.sh\"");
    fixture.root.executable("usr/src/foo-1.0/pre.sh", "#!/bin/sh\n");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let phases =
        ["copying", "running PRE_BUILD", "compiling", "checking", "stripping and compressing"];
    assert_eq!(
        fixture.output.phases,
        phases.map(|phase| format!("build foo/1.0 for {K1}: {phase}"))
    );
}

#[test]
fn second_run_does_nothing() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let plan = fixture.plan(&sync(&["foo-1.0"], &[K1]));
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn removed_module_leaves_no_files() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("POST_REMOVE=\"bye.sh now\"");
    let script =
        format!("#!/bin/sh\necho \"$1 $kernelver\" > {}/bye\n", fixture.root.path().display());
    fixture.root.executable("usr/src/foo-1.0/bye.sh", &script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fixture.root.read("bye"), format!("now {K1}\n"));
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/updates")));
    assert_eq!(fixture.tree(), "");
}

#[test]
fn run_without_builds_removes_what_a_killed_run_left() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    let left = [".bin/once/.answers/probe", ".build/foo-1.0/foo.o"];
    left.iter().for_each(|path| fixture.root.write(format!("var/lib/dkms/{path}"), ""));
    assert_clean(&fixture.command(Verb::Install, "foo/1.0"));
    assert!(fixture.installed(K1, "foo.ko"));
    let dirs = ["var/lib/dkms/.bin/once", "var/lib/dkms/.build"];
    assert!(!dirs.iter().any(|dir| fixture.root.exists(dir)), "{}", fixture.tree());
}

#[test]
fn run_for_pending_work_removes_what_a_killed_run_left() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.install());
    let work = PendingWork::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    PendingList::of(&fixture.machine().trees).write(&work).unwrap();
    fixture.root.write("var/lib/dkms/.bin/once/.answers/probe", "");
    assert_clean(&fixture.run(&Request::Autoinstall { kernels: None, only: false }));
    assert!(!fixture.root.exists("var/lib/dkms/.bin/once"), "{}", fixture.tree());
}

#[test]
fn old_version_stays_installed_if_the_new_one_fails() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let before = fs::read(fixture.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0").broken();
    let report = fixture.sync(&["foo-1.0", "foo-2.0"], &[]);
    let failed = report.failures().next().unwrap().1;
    assert!(failed.cause.as_ref().unwrap().contains("error"), "{failed:?}");
    assert_eq!(failed.code, 10);
    let after = fs::read(fixture.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    assert_eq!(before.unwrap(), after.unwrap());

    let builds = fixture.builds();
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    assert_eq!(fixture.builds(), builds, "a known failure was retried");

    fixture.root.remove("usr/src/foo-2.0");
    assert_clean(&fixture.sync(&["foo-2.0"], &[]));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
    assert!(!fixture.root.exists("var/lib/dkms/.pending"), "{}", fixture.tree());
}

#[test]
fn new_version_replaces_the_old_one() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["foo", "extra"]);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "extra.ko"));
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0");
    assert_clean(&fixture.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(!fixture.installed(K1, "extra.ko"), "only the old version has it");
    assert!(!fixture.root.exists("var/lib/dkms/foo/1.0"), "{}", fixture.tree());
}

#[rstest]
#[case::last_object(["foo", "extra"])]
#[case::first_object(["extra", "foo"])]
fn objects_are_placed_together_or_not_at_all(#[case] objects: [&str; 2]) {
    let mut fixture = Fixture::new();
    fixture.script("POST_REMOVE", "echo gone >> ../../../bye");
    assert_clean(&fixture.install());
    let before = fs::read(fixture.root.at(PLACED)).unwrap();
    fixture.root.source("foo", "2.0").objects(&objects);
    let obstacle = format!("usr/lib/modules/{K1}/updates/dkms/extra.ko");
    fixture.root.write(format!("{obstacle}/file"), "");
    let message = assert_failed(&fixture.command(Verb::Install, "foo/2.0"), 6);
    assert!(message.contains("cannot place") && message.contains("extra.ko"), "{message}");
    assert_eq!(fs::read(fixture.root.at(PLACED)).unwrap(), before);
    assert!(!fixture.root.exists("bye"), "the old version is still installed");
    let listing = fixture.root.listing(format!("usr/lib/modules/{K1}/updates"));
    assert!(!listing.contains(".tmp-"), "{listing}");

    fixture.root.remove(&obstacle);
    assert_clean(&fixture.command(Verb::Install, "foo/2.0"));
    assert!(fixture.installed(K1, "extra.ko"));
    assert_ne!(fs::read(fixture.root.at(PLACED)).unwrap(), before);
    assert!(!fixture.root.exists("bye"), "the old version is still built");
}

#[rstest]
#[case::of_another_kernel(&kernel_object(K2, "foo", &[]), K2)]
#[case::not_an_object(b"text", "an unknown kernel")]
fn build_of_dkms_for_another_kernel_is_not_placed(#[case] object: &[u8], #[case] named: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    fixture.root.remove(format!("{BUILT}/alpm-dkms.toml"));
    fixture.root.write(format!("{BUILT}/module/foo.ko"), object);
    let message = assert_failed(&fixture.install(), 6);
    assert!(message.contains(&format!("built for {named} instead of {K1}")), "{message}");
    assert!(!fixture.root.exists(PLACED));
}

#[test]
fn kernel_upgrade_removes_the_old_directory() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        fixture.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K1, K2]));
    assert!(fixture.installed(K2, "foo.ko"));
    assert!(
        !fixture.root.exists(format!("usr/lib/modules/{K1}")),
        "{}",
        fixture.root.listing("usr/lib/modules")
    );
    assert!(!fixture.tree().contains(K1), "{}", fixture.tree());
}

#[test]
fn object_for_another_kernel_is_refused() {
    let mut fixture = Fixture::new();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    let other = fixture.root.at(format!("usr/lib/modules/{K2}/build"));
    fixture
        .root
        .source("foo", "1.0")
        .conf_line(&format!("MAKE=\"make -C {} M=$dkms_tree/foo/1.0/build\"", other.display()));
    let report = fixture.sync(&["foo-1.0"], &[]);
    let (action, failed) = report.failures().next().unwrap();
    assert_eq!(action.kernel().unwrap().as_str(), K1);
    assert!(failed.message.contains(K2) && failed.message.contains(K1), "{}", failed.message);
    assert!(!fixture.installed(K1, "foo.ko") && fixture.installed(K2, "foo.ko"));
}

#[rstest]
#[case("config/kernel.release", "6.6.1-lts\n", "6.6.1-lts")]
#[case("generated/utsrelease.h", "#define UTS_RELEASE \"5.15.1-MiSTer\"\n", "5.15.1-MiSTer")]
fn headers_of_another_release_are_refused_before_compiling(
    #[case] file: &str,
    #[case] text: &str,
    #[case] other: &str,
) {
    let mut fixture = Fixture::new();
    fixture.root.kernel(K2).pkgbase("linux-lts").headers();
    fixture.root.source("foo", "1.0");
    fixture.root.write(format!("usr/lib/modules/{K1}/build/include/{file}"), text);
    let headers = fixture.root.at(format!("usr/lib/modules/{K1}/build"));
    let want =
        format!("the kernel headers in {} are those of {other}, not of {K1}", headers.display());
    assert_eq!(assert_failed(&fixture.sync(&["foo-1.0"], &[]), 21), want);
    assert_eq!(fixture.builds(), 1);
    assert!(fixture.installed(K2, "foo.ko"));
    assert_eq!(assert_failed(&fixture.install(), 21), want);
    assert_eq!(fixture.builds(), 1);
}

#[test]
#[ignore = "needs root: run make unit"]
fn uname_prints_the_kernel_of_the_build() {
    let mut fixture = Fixture::new();
    let root = fixture.root.path().display().to_string();
    fixture.root.source("foo", "1.0").conf_line(&format!(
        "MAKE='make -C {root}/usr/lib/modules/$(uname -r)/build M=$dkms_tree/foo/1.0/build'"
    ));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
}

#[test]
fn invalid_conf_only_affects_its_own_module() {
    let mut fixture = Fixture::new();
    fixture.root.source("good", "1.0");
    fixture.root.source("empty", "1.0").conf("");
    fixture.root.source("exits", "1.0").conf("exit 3\n");
    fixture.root.source("out", "1.0").conf_line("DEST_MODULE_LOCATION=/../../etc");
    let report = fixture.sync(&["good-1.0", "empty-1.0", "exits-1.0", "out-1.0"], &[]);
    let failed: BTreeSet<_> =
        report.failures().map(|(action, _)| action.module().unwrap().to_string()).collect();
    assert_eq!(failed, ["empty/1.0", "exits/1.0", "out/1.0"].map(String::from).into());
    assert!(fixture.installed(K1, "good.ko"));
    assert!(!fixture.root.exists("etc/out.ko"));
}

#[test]
fn interrupted_installation_is_finished() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    // The state after a run was killed between two renames: a temporary file exists, an object is
    // missing, and the installation is pending.
    let placed = format!("usr/lib/modules/{K1}/updates/dkms");
    fixture.root.remove(format!("{placed}/foo.ko"));
    fixture.root.write(format!("{placed}/.tmp-foo.ko.new"), "half");
    let work = PendingWork::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    PendingList::of(&fixture.machine().trees).write(&work).unwrap();
    assert_clean(&fixture.sync(&[], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(!fixture.root.exists(format!("{placed}/.tmp-foo.ko.new")));
    assert!(!fixture.root.exists("var/lib/dkms/.pending"));
}

#[test]
fn commands_work_like_those_of_dkms() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.command(Verb::Build, "foo/1.0"));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert_clean(&fixture.command(Verb::Install, "foo/1.0"));
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(fixture.builds(), 1);
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists(format!("var/lib/dkms/foo/1.0/{K1}")));
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
    assert!(fixture.root.exists("usr/src/foo-1.0"), "remove must not delete the source");
}

#[test]
fn foreign_file_in_place_of_an_object_is_kept() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let placed = format!("usr/lib/modules/{K1}/updates/dkms/foo.ko");
    let foreign = kernel_object(K1, "foo", &["version=foreign"]);
    fixture.root.write(&placed, &foreign);
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fs::read(fixture.root.at(&placed)).unwrap(), foreign);
    assert!(
        fixture.output.lines.iter().any(|line| line.contains("foo.ko")),
        "{:?}",
        fixture.output.lines
    );
}

#[test]
fn removing_alpm_dkms_removes_modules_of_the_same_transaction() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let sources = ["foo-1.0".to_owned()].into();
    assert_clean(&fixture.run(&Request::Depart { sources, kernels: BTreeSet::new(), swap: false }));
    assert_eq!(fixture.root.listing("var/lib/dkms"), "");
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/updates")));
}

#[test]
fn replacing_alpm_dkms_with_dkms_keeps_all_modules() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let request =
        Request::Depart { sources: BTreeSet::new(), kernels: BTreeSet::new(), swap: true };
    assert_clean(&fixture.run(&request));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists("var/lib/dkms/foo/1.0/source"));
    let own_files = fixture.tree().lines().filter(|line| line.contains("/.")).count();
    assert_eq!(own_files, 0, "{}", fixture.tree());
}

#[test]
fn patches_are_applied() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("PATCH[0]=fix.patch").broken();
    let broken = fixture.root.read("usr/src/foo-1.0/foo.c");
    let mut patch = format!("--- a/foo.c\n+++ b/foo.c\n@@ -1,{} +1 @@\n", broken.lines().count());
    broken.lines().for_each(|line| patch.push_str(&format!("-{line}\n")));
    patch.push_str("+int fixed;\n");
    fixture.root.write("usr/src/foo-1.0/patches/fix.patch", patch);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    fixture.root.source("bar", "1.0").conf_line("PATCH[0]=absent.patch");
    let report = fixture.sync(&["bar-1.0"], &[]);
    assert_eq!(report.failures().next().unwrap().1.code, 5);
}

#[test]
fn object_shared_by_two_modules_stays_until_both_are_removed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["same"]);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.source("bar", "1.0").objects(&["same"]);
    assert_clean(&fixture.sync(&["bar-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "same.ko"));
    fixture.root.remove("usr/src/bar-1.0");
    assert_clean(&fixture.sync(&["bar-1.0"], &[]));
    assert!(!fixture.installed(K1, "same.ko"));
}

#[test]
fn module_without_a_dkms_conf_is_removed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0/dkms.conf");
    fixture.root.write("usr/src/foo-1.0/notes", "an editor's");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
}

#[test]
fn temporary_files_of_killed_runs_are_deleted() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    for file in [
        ".build/foo-1.0-x/y",
        ".pending/.tmp-x",
        ".kept/.tmp-foo-1.0/x",
        "foo/.tmp-link",
        "foo/1.0/.tmp-x",
    ] {
        fixture.root.write(format!("var/lib/dkms/{file}"), "");
    }
    let staging = [format!("{K1}/.tmp_x86_64_abc/module"), "6.1/.tmp_x86_64_abc/module".to_owned()];
    for dir in staging {
        fixture.root.dir(format!("var/lib/dkms/foo/1.0/{dir}"));
    }
    let others = ["1.0/build/.tmp_x", "1.0/build/.tmp-x", "original_module/6.1/.tmp_x"]
        .map(|file| format!("var/lib/dkms/foo/{file}"));
    for file in &others {
        fixture.root.write(file, "");
    }
    fixture.root.source("bar", "1.0");
    assert_clean(&fixture.sync(&["bar-1.0"], &[]));
    for file in &others {
        assert!(fixture.root.exists(file), "{file}");
        fixture.root.remove(file);
    }
    assert!(!fixture.tree().contains(".tmp"), "{}", fixture.tree());
    assert!(!fixture.root.exists("var/lib/dkms/.pending"));
}
