//! Adding, installing, upgrading and removing modules.

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::plan::{Request, Verb};

use crate::fixture::{Fixture, K1, K2, clean, id, kernel, sync};

#[test]
fn a_module_is_built_placed_and_indexed() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(fixture.root.calls("depmod").len(), 1);
    insta::assert_snapshot!(fixture.tree());
}

#[test]
fn a_build_tells_its_phases() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("PRE_BUILD=\"pre.sh\"");
    fixture.root.executable("usr/src/foo-1.0/pre.sh", "#!/bin/sh\n");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    let phases =
        ["copying", "running PRE_BUILD", "compiling", "checking", "stripping and compressing"];
    assert_eq!(
        fixture.heard.phases,
        phases.map(|phase| format!("build foo/1.0 for {K1}: {phase}"))
    );
}

#[test]
fn the_second_run_does_nothing() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    let plan = fixture.plan(&sync(&["foo-1.0"], &[K1]));
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn a_removed_module_leaves_nothing() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("POST_REMOVE=\"bye.sh now\"");
    let script =
        format!("#!/bin/sh\necho \"$1 $kernelver\" > {}/bye\n", fixture.root.path().display());
    fixture.root.executable("usr/src/foo-1.0/bye.sh", &script);
    clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fixture.root.read("bye"), format!("now {K1}\n"));
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/updates")));
    assert_eq!(
        fixture.tree(),
        "var/lib/dkms/.bin/\nvar/lib/dkms/.cache/".lines().filter(|_| false).collect::<String>()
    );
}

#[test]
fn a_new_version_that_fails_leaves_the_old_one_until_both_go() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
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
    clean(&fixture.sync(&["foo-2.0"], &[K1]));
    assert_eq!(fixture.builds(), builds, "a known failure is not tried again");

    fixture.root.remove("usr/src/foo-2.0");
    clean(&fixture.sync(&["foo-2.0"], &[]));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
    assert!(!fixture.root.exists("var/lib/dkms/.pending"), "{}", fixture.tree());
}

#[test]
fn a_new_version_takes_the_place_of_the_old_one() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["foo", "extra"]);
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "extra.ko"));
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0");
    clean(&fixture.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(!fixture.installed(K1, "extra.ko"), "only the old version had it");
    assert!(!fixture.root.exists("var/lib/dkms/foo/1.0"), "{}", fixture.tree());
}

#[test]
fn a_kernel_bump_leaves_nothing_of_the_old_directory() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        fixture.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
    fixture.root.kernel(K2).pkgbase("linux").headers();
    clean(&fixture.sync(&[], &[K1, K2]));
    assert!(fixture.installed(K2, "foo.ko"));
    assert!(
        !fixture.root.exists(format!("usr/lib/modules/{K1}")),
        "{}",
        fixture.root.listing("usr/lib/modules")
    );
    assert!(!fixture.tree().contains(K1), "{}", fixture.tree());
}

#[test]
fn an_object_for_another_kernel_is_refused() {
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

#[test]
fn a_makefile_that_asks_uname_gets_the_kernel_it_builds_for() {
    let mut fixture = Fixture::new();
    let root = fixture.root.path().display().to_string();
    fixture.root.source("foo", "1.0").conf_line(&format!(
        "MAKE='make -C {root}/usr/lib/modules/$(uname -r)/build M=$dkms_tree/foo/1.0/build'"
    ));
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
}

#[test]
fn broken_confs_fail_their_own_modules_only() {
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
fn what_was_interrupted_is_finished() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    // As a kill between two renames leaves it: a stray file, an object missing, the pending work.
    let placed = format!("usr/lib/modules/{K1}/updates/dkms");
    fixture.root.remove(format!("{placed}/foo.ko"));
    fixture.root.write(format!("{placed}/.tmp-foo.ko.new"), "half");
    let work = PendingWork::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    PendingList::of(&fixture.machine().trees).write(&work).unwrap();
    clean(&fixture.sync(&[], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(!fixture.root.exists(format!("{placed}/.tmp-foo.ko.new")));
    assert!(!fixture.root.exists("var/lib/dkms/.pending"));
}

#[test]
fn commands_do_what_dkmss_do() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.command(Verb::Build, "foo/1.0"));
    assert!(!fixture.installed(K1, "foo.ko"));
    clean(&fixture.command(Verb::Install, "foo/1.0"));
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(fixture.builds(), 1);
    clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists(format!("var/lib/dkms/foo/1.0/{K1}")));
    clean(&fixture.command(Verb::Remove, "foo/1.0"));
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
    assert!(fixture.root.exists("usr/src/foo-1.0"), "the source is not ours to remove");
}

#[test]
fn a_foreign_file_at_our_place_is_not_deleted() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    let placed = format!("usr/lib/modules/{K1}/updates/dkms/foo.ko");
    fixture.root.write(&placed, "somebody else's");
    fixture.root.remove("usr/src/foo-1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(fixture.root.read(&placed), "somebody else's");
    assert!(
        fixture.heard.lines.iter().any(|line| line.contains("foo.ko")),
        "{:?}",
        fixture.heard.lines
    );
}

#[test]
fn our_departure_takes_along_what_goes_with_us() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    let sources = ["foo-1.0".to_owned()].into();
    clean(&fixture.run(&Request::Depart { sources, kernels: BTreeSet::new(), swap: false }));
    assert_eq!(fixture.root.listing("var/lib/dkms"), "");
    assert!(!fixture.root.exists(format!("usr/lib/modules/{K1}/updates")));
}

#[test]
fn another_dkms_finds_every_module_as_it_is() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    let request =
        Request::Depart { sources: BTreeSet::new(), kernels: BTreeSet::new(), swap: true };
    clean(&fixture.run(&request));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(fixture.root.exists("var/lib/dkms/foo/1.0/source"));
    let ours = fixture.tree().lines().filter(|line| line.contains("/.")).count();
    assert_eq!(ours, 0, "{}", fixture.tree());
}

#[test]
fn patches_are_applied() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("PATCH[0]=mend.patch").broken();
    let broken = fixture.root.read("usr/src/foo-1.0/foo.c");
    let mut patch = format!("--- a/foo.c\n+++ b/foo.c\n@@ -1,{} +1 @@\n", broken.lines().count());
    broken.lines().for_each(|line| patch.push_str(&format!("-{line}\n")));
    patch.push_str("+int mended;\n");
    fixture.root.write("usr/src/foo-1.0/patches/mend.patch", patch);
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko"));
    fixture.root.source("bar", "1.0").conf_line("PATCH[0]=absent.patch");
    let report = fixture.sync(&["bar-1.0"], &[]);
    assert_eq!(report.failures().next().unwrap().1.code, 5);
}

#[test]
fn an_object_that_another_module_brings_too_stays() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").objects(&["same"]);
    clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.source("bar", "1.0").objects(&["same"]);
    clean(&fixture.sync(&["bar-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "same.ko"));
    fixture.root.remove("usr/src/bar-1.0");
    clean(&fixture.sync(&["bar-1.0"], &[]));
    assert!(!fixture.installed(K1, "same.ko"));
}

#[test]
fn what_a_package_left_in_its_source_directory_is_no_source() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0/dkms.conf");
    fixture.root.write("usr/src/foo-1.0/notes", "an editor's");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(!fixture.installed(K1, "foo.ko"));
    assert!(!fixture.root.exists("var/lib/dkms/foo"), "{}", fixture.tree());
}

#[test]
fn strays_of_killed_runs_are_swept() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    clean(&fixture.sync(&["foo-1.0"], &[]));
    for stray in [
        ".build/foo-1.0-x/y",
        ".pending/.tmp-x",
        ".kept/.tmp-foo-1.0/x",
        "foo/.tmp-link",
        "foo/1.0/.tmp-x",
    ] {
        fixture.root.write(format!("var/lib/dkms/{stray}"), "");
    }
    fixture.root.dir(format!("var/lib/dkms/foo/1.0/{K1}/.tmp_x86_64_abc/module"));
    fixture.root.source("bar", "1.0");
    clean(&fixture.sync(&["bar-1.0"], &[]));
    assert!(!fixture.tree().contains(".tmp"), "{}", fixture.tree());
    assert!(!fixture.root.exists("var/lib/dkms/.pending"));
}
