//! Modules come, change and go: what is built, placed and taken away.

use super::*;

#[test]
fn a_module_is_built_placed_and_indexed() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    assert_eq!(machine.root.calls("depmod").len(), 1);
    insta::assert_snapshot!(machine.tree());
}

#[test]
fn a_build_tells_its_phases() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0").conf_line("PRE_BUILD=\"pre.sh\"");
    let script = machine.root.at("usr/src/foo-1.0/pre.sh");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    executable(&script);
    clean(&machine.sync(&["foo-1.0"], &[]));
    let phases =
        ["copying", "running PRE_BUILD", "compiling", "checking", "stripping and compressing"];
    assert_eq!(
        machine.heard.phases,
        phases.map(|phase| format!("build foo/1.0 for {K1}: {phase}"))
    );
}

#[test]
fn the_second_run_does_nothing() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let plan = machine.plan(&sync(&["foo-1.0"], &[K1]));
    assert_eq!(plan.steps, []);
}

#[test]
fn a_removed_module_leaves_nothing() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0").conf_line("POST_REMOVE=\"bye.sh now\"");
    let script = machine.root.at("usr/src/foo-1.0/bye.sh");
    fs::write(
        &script,
        format!("#!/bin/sh\necho \"$1 $kernelver\" > {}/bye\n", machine.root.path().display()),
    )
    .unwrap();
    executable(&script);
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert_eq!(machine.root.read("bye"), format!("now {K1}\n"));
    assert!(!machine.root.exists(format!("usr/lib/modules/{K1}/updates")));
    assert_eq!(
        machine.tree(),
        "var/lib/dkms/.bin/\nvar/lib/dkms/.cache/".lines().filter(|_| false).collect::<String>()
    );
}

#[test]
fn a_new_version_that_fails_leaves_the_old_one_until_both_go() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let before = fs::read(machine.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    machine.root.remove("usr/src/foo-1.0");
    machine.root.source("foo", "2.0").broken();
    let report = machine.sync(&["foo-1.0", "foo-2.0"], &[]);
    let failed = report.failures().next().unwrap().1;
    assert!(failed.cause.as_ref().unwrap().contains("error"), "{failed:?}");
    assert_eq!(failed.code, 10);
    let after = fs::read(machine.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    assert_eq!(before.unwrap(), after.unwrap());

    let builds = machine.builds();
    clean(&machine.sync(&["foo-2.0"], &[K1]));
    assert_eq!(machine.builds(), builds, "a known failure is not tried again");

    machine.root.remove("usr/src/foo-2.0");
    clean(&machine.sync(&["foo-2.0"], &[]));
    assert!(!machine.installed(K1, "foo.ko"));
    assert!(!machine.root.exists("var/lib/dkms/foo"), "{}", machine.tree());
    assert!(!machine.root.exists("var/lib/dkms/.pending"), "{}", machine.tree());
}

#[test]
fn a_new_version_takes_the_place_of_the_old_one() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0").objects(&["foo", "extra"]);
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "extra.ko"));
    machine.root.remove("usr/src/foo-1.0");
    machine.root.source("foo", "2.0");
    clean(&machine.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(!machine.installed(K1, "extra.ko"), "only the old version had it");
    assert!(!machine.root.exists("var/lib/dkms/foo/1.0"), "{}", machine.tree());
}

#[test]
fn a_kernel_bump_leaves_nothing_of_the_old_directory() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        machine.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
    machine.root.kernel(K2).pkgbase("linux").headers();
    clean(&machine.sync(&[], &[K1, K2]));
    assert!(machine.installed(K2, "foo.ko"));
    assert!(
        !machine.root.exists(format!("usr/lib/modules/{K1}")),
        "{}",
        machine.root.listing("usr/lib/modules")
    );
    assert!(!machine.tree().contains(K1), "{}", machine.tree());
}

#[test]
fn an_object_for_another_kernel_is_refused() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.kernel(K2).pkgbase("linux").headers();
    let other = machine.root.at(format!("usr/lib/modules/{K2}/build"));
    machine
        .root
        .source("foo", "1.0")
        .conf_line(&format!("MAKE=\"make -C {} M=$dkms_tree/foo/1.0/build\"", other.display()));
    let report = machine.sync(&["foo-1.0"], &[]);
    let (action, failed) = report.failures().next().unwrap();
    assert_eq!(action.kernel().unwrap().as_str(), K1);
    assert!(failed.message.contains(K2) && failed.message.contains(K1), "{}", failed.message);
    assert!(!machine.installed(K1, "foo.ko") && machine.installed(K2, "foo.ko"));
}

#[test]
fn a_makefile_that_asks_uname_gets_the_kernel_it_builds_for() {
    let mut machine = TestMachine::with_kernel(K1);
    let root = machine.root.path().display().to_string();
    machine.root.source("foo", "1.0").conf_line(&format!(
        "MAKE='make -C {root}/usr/lib/modules/$(uname -r)/build M=$dkms_tree/foo/1.0/build'"
    ));
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
}

#[test]
fn broken_confs_fail_their_own_modules_only() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("good", "1.0");
    machine.root.source("empty", "1.0").conf("");
    machine.root.source("exits", "1.0").conf("exit 3\n");
    machine.root.source("out", "1.0").conf_line("DEST_MODULE_LOCATION=/../../etc");
    let report = machine.sync(&["good-1.0", "empty-1.0", "exits-1.0", "out-1.0"], &[]);
    let failed: BTreeSet<_> =
        report.failures().map(|(action, _)| action.module().unwrap().to_string()).collect();
    assert_eq!(failed, ["empty/1.0", "exits/1.0", "out/1.0"].map(String::from).into());
    assert!(machine.installed(K1, "good.ko"));
    assert!(!machine.root.exists("etc/out.ko"));
}

#[test]
fn what_was_interrupted_is_finished() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    // As a kill between two renames leaves it: a stray file, an object missing, the pending work.
    let placed = format!("usr/lib/modules/{K1}/updates/dkms");
    machine.root.remove(format!("{placed}/foo.ko"));
    machine.root.write(format!("{placed}/.tmp-foo.ko.new"), "half");
    let work = PendingWork::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    PendingList::of(&machine.machine().trees).write(&work).unwrap();
    clean(&machine.sync(&[], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(!machine.root.exists(format!("{placed}/.tmp-foo.ko.new")));
    assert!(!machine.root.exists("var/lib/dkms/.pending"));
}

#[test]
fn commands_do_what_dkmss_do() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.command(Verb::Build, "foo/1.0", K1));
    assert!(!machine.installed(K1, "foo.ko"));
    clean(&machine.command(Verb::Install, "foo/1.0", K1));
    assert!(machine.installed(K1, "foo.ko"));
    assert_eq!(machine.builds(), 1);
    clean(&machine.command(Verb::Uninstall, "foo/1.0", K1));
    assert!(!machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists(format!("var/lib/dkms/foo/1.0/{K1}")));
    clean(&machine.command(Verb::Remove, "foo/1.0", K1));
    assert!(!machine.root.exists("var/lib/dkms/foo"), "{}", machine.tree());
    assert!(machine.root.exists("usr/src/foo-1.0"), "the source is not ours to remove");
}

#[test]
fn a_foreign_file_at_our_place_is_not_deleted() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let placed = format!("usr/lib/modules/{K1}/updates/dkms/foo.ko");
    machine.root.write(&placed, "somebody else's");
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert_eq!(machine.root.read(&placed), "somebody else's");
    assert!(
        machine.heard.lines.iter().any(|line| line.contains("foo.ko")),
        "{:?}",
        machine.heard.lines
    );
}

#[test]
fn our_departure_takes_along_what_goes_with_us() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let sources = ["foo-1.0".to_owned()].into();
    clean(&machine.run(&Request::Depart { sources, kernels: BTreeSet::new(), swap: false }));
    assert_eq!(machine.root.listing("var/lib/dkms"), "");
    assert!(!machine.root.exists(format!("usr/lib/modules/{K1}/updates")));
}

#[test]
fn another_dkms_finds_every_module_as_it_is() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let request =
        Request::Depart { sources: BTreeSet::new(), kernels: BTreeSet::new(), swap: true };
    clean(&machine.run(&request));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists("var/lib/dkms/foo/1.0/source"));
    let ours = machine.tree().lines().filter(|line| line.contains("/.")).count();
    assert_eq!(ours, 0, "{}", machine.tree());
}

#[test]
fn patches_are_applied() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0").conf_line("PATCH[0]=mend.patch").broken();
    let broken = machine.root.read("usr/src/foo-1.0/foo.c");
    let mut patch = format!("--- a/foo.c\n+++ b/foo.c\n@@ -1,{} +1 @@\n", broken.lines().count());
    broken.lines().for_each(|line| patch.push_str(&format!("-{line}\n")));
    patch.push_str("+int mended;\n");
    machine.root.write("usr/src/foo-1.0/patches/mend.patch", patch);
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    machine.root.source("bar", "1.0").conf_line("PATCH[0]=absent.patch");
    let report = machine.sync(&["bar-1.0"], &[]);
    assert_eq!(report.failures().next().unwrap().1.code, 5);
}

#[test]
fn an_object_that_another_module_brings_too_stays() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0").objects(&["same"]);
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.source("bar", "1.0").objects(&["same"]);
    clean(&machine.sync(&["bar-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "same.ko"));
    machine.root.remove("usr/src/bar-1.0");
    clean(&machine.sync(&["bar-1.0"], &[]));
    assert!(!machine.installed(K1, "same.ko"));
}

#[test]
fn what_a_package_left_in_its_source_directory_is_no_source() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0/dkms.conf");
    machine.root.write("usr/src/foo-1.0/notes", "an editor's");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.installed(K1, "foo.ko"));
    assert!(!machine.root.exists("var/lib/dkms/foo"), "{}", machine.tree());
}

#[test]
fn strays_of_killed_runs_are_swept() {
    let mut machine = TestMachine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    for stray in [
        ".build/foo-1.0-x/y",
        ".pending/.tmp-x",
        ".kept/.tmp-foo-1.0/x",
        "foo/.tmp-link",
        "foo/1.0/.tmp-x",
    ] {
        machine.root.write(format!("var/lib/dkms/{stray}"), "");
    }
    machine.root.dir(format!("var/lib/dkms/foo/1.0/{K1}/.tmp_x86_64_abc/module"));
    machine.root.source("bar", "1.0");
    clean(&machine.sync(&["bar-1.0"], &[]));
    assert!(!machine.tree().contains(".tmp"), "{}", machine.tree());
    assert!(!machine.root.exists("var/lib/dkms/.pending"));
}
