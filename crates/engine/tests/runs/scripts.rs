//! Tests of the scripts of modules and of the administrator's commands.

use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{BUILT, Fixture, K1, PLACED, assert_clean, assert_failed, id, kernel};

#[test]
fn failing_post_add_sets_the_exit_code_but_the_module_is_added() {
    let mut fixture = Fixture::new();
    fixture.script("POST_ADD", "echo $1 $2; pwd; exit 7");
    fixture.change = |machine| machine.options.only_added = true;
    let message = assert_failed(&fixture.command(Verb::Add, "foo/1.0"), 7);
    assert!(message.contains("foo/1.0: an argument"), "{message}");
    assert!(message.contains("usr/src/foo-1.0"), "{message}");
    assert!(fixture.root.exists("var/lib/dkms/foo/1.0/source"));
    // If another command adds the module, POST_ADD does not affect the exit code.
    assert_clean(&fixture.command(Verb::Remove, "foo/1.0"));
    fixture.change = |_| {};
    assert_clean(&fixture.install());
    assert!(fixture.output.lines.iter().any(|line| line.contains("POST_ADD script failed")));
}

#[rstest]
#[case::with_output("echo not today; exit 3", "3): PRE_INSTALL.sh an argument\nfoo/1.0: not today")]
#[case::without_output("exit 1", "1): PRE_INSTALL.sh an argument")]
fn failing_pre_install_prevents_installation(#[case] script: &str, #[case] problem: &str) {
    let mut fixture = Fixture::new();
    fixture.script("PRE_INSTALL", script);
    let report = fixture.install();
    let message = assert_failed(&report, 101);
    assert_eq!(message, format!("PRE_INSTALL script failed (exit status {problem}"));
    let (_, failed) = report.failures().next().unwrap();
    let hint = format!("run: dkms install foo/1.0 -k {K1} --force");
    assert_eq!(failed.hint.as_deref(), Some(hint.as_str()));
    assert!(!fixture.root.exists(PLACED));
    fixture.change = |machine| machine.options.force_install = true;
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(PLACED));
}

#[test]
fn script_of_the_administrator_replaces_that_of_the_module() {
    let mut fixture = Fixture::new();
    fixture.script("POST_INSTALL", "echo the module says");
    fixture.root.executable("etc/dkms/foo/POST_INSTALL.sh", "#!/bin/sh\npwd\n");
    assert_clean(&fixture.install());
    let said = fixture.output.lines.join("\n");
    assert!(said.ends_with("/etc/dkms/foo"), "{said}");
}

#[test]
fn post_remove_of_a_removed_version_runs_after_the_upgrade() {
    let mut fixture = Fixture::new();
    let log = fixture.root.at("removed");
    fixture.script("POST_REMOVE", &format!("echo $module_version >> {}", log.display()));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    fixture.root.remove("usr/src/foo-1.0");
    fixture.root.source("foo", "2.0");
    assert_clean(&fixture.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert_eq!(fixture.root.read("removed"), "1.0\n");
}

#[test]
fn post_build_can_add_files_to_the_new_build() {
    let mut fixture = Fixture::new();
    fixture.script("PRE_BUILD", "echo before");
    fixture.script(
        "POST_BUILD",
        "cd ../$kernelver/$arch && ls module && cp ../../build/dkms.conf kept.conf && echo after",
    );
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(format!("{BUILT}/kept.conf")));
    let log = fixture.root.read(format!("{BUILT}/log/make.log"));
    let steps: Vec<&str> = log
        .lines()
        .filter(|line| !line.is_empty())
        .filter(|line| !line.starts_with("# elapsed") && !line.starts_with("make: "))
        .skip(2) // the header and the date
        .collect();
    let rule = "-".repeat(64);
    let root = fixture.root.path().display();
    let make = format!(
        "# command: make KERNELRELEASE={K1} -C {root}/usr/lib/modules/{K1}/build \
         M={root}/var/lib/dkms/foo/1.0/build"
    );
    let dir = format!("{root}/var/lib/dkms/foo/1.0/build");
    let script = |name| format!("# command: cd {dir}/ && {dir}/{name}.sh an argument");
    assert_eq!(
        steps,
        [
            "Running the pre_build script",
            &script("PRE_BUILD"),
            "before",
            "# exit code: 0",
            &rule,
            "Building module(s)",
            &make,
            "  CC [M]  foo.o",
            "# exit code: 0",
            &rule,
            "Running the post_build script",
            &script("POST_BUILD"),
            "Module.symvers",
            "foo.ko",
            "after",
            "# exit code: 0",
            &rule,
        ]
    );
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "a second run has something to do");
}

#[test]
fn failing_post_build_keeps_the_old_build() {
    let mut fixture = Fixture::new();
    fixture.script("POST_BUILD", "exit $(cat /dev/null $ANSWER)");
    assert_clean(&fixture.install());
    let old = fixture.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1");
    fixture.script("POST_BUILD", "rm ../$kernelver/$arch/module/*; exit 9");
    let message = assert_failed(&fixture.sync(&["foo-1.0"], &[K1]), 9);
    assert!(message.contains("POST_BUILD"), "{message}");
    assert_eq!(fixture.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1"), old);
    assert!(fixture.root.exists(PLACED));
    // If there is no old build, a failing POST_BUILD leaves no build.
    assert_clean(&fixture.command(Verb::Unbuild, "foo/1.0"));
    assert_failed(&fixture.command(Verb::Build, "foo/1.0"), 9);
    assert!(!fixture.root.exists("var/lib/dkms/foo/1.0/7.2.12-arch1-1"));
}

#[test]
fn versions_of_dependencies_are_recorded() {
    let mut fixture = Fixture::new();
    let lines = "BUILD_DEPENDS=bar\nBUILD_DEPENDS_REBUILD=yes";
    fixture.root.source("foo", "1.0").conf_line(lines);
    fixture.root.source("bar", "2.1");
    assert_clean(&fixture.sync(&["foo-1.0", "bar-2.1"], &[K1]));
    assert_eq!(fixture.root.read(format!("{BUILT}/.dep_bar")), "2.1\n");
}

#[test]
fn post_transaction_runs_only_after_a_change() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let command = "post_transaction='echo changed for $kernelver; exit 3'\n";
    fixture.root.write("etc/dkms/framework.conf", command);
    let report = fixture.sync(&["foo-1.0"], &[K1]);
    assert!(report.is_clean());
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    let log = fixture.root.read("var/lib/dkms/post_transaction.log");
    assert!(log.contains(&format!("changed for {K1}\n\n# exit code: 3\n")), "{log}");
    fixture.root.remove("var/lib/dkms/post_transaction.log");
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    assert!(!fixture.root.exists("var/lib/dkms/post_transaction.log"), "it ran without a change");
}

/// Only without confinement is this process the script's parent. No other test in this program may
/// listen for signals, because it would receive those that are sent here.
#[test]
fn script_that_a_signal_interrupts_runs_again() {
    let (module, kernel) = (id("foo/1.0"), kernel(K1));
    let install = PendingWork::Install { module: module.clone(), kernel: kernel.clone() };
    let uninstall = PendingWork::Uninstall { module, kernel };
    for (directive, verb, work) in
        [("POST_INSTALL", Verb::Install, install), ("POST_REMOVE", Verb::Uninstall, uninstall)]
    {
        let mut fixture = Fixture { without_privileges: true, ..Fixture::new() };
        let script = "[ -e ROOT/stop ] || exec touch ROOT/done; kill -TERM $PPID; sleep 9";
        let root = fixture.root.path().to_str().unwrap().to_owned();
        fixture.script(directive, &script.replace("ROOT", &root));
        if verb == Verb::Uninstall {
            assert_clean(&fixture.install());
        }
        fixture.root.write("stop", "");
        fixture.change = |machine| machine.tools.stop.listen().unwrap();
        assert!(fixture.command(verb, "foo/1.0").interrupted.is_some());
        let pending = PendingList::of(&fixture.machine().trees).read();
        assert!(pending.contains(&work), "{pending:?}");
        fixture.root.remove("stop");
        assert_clean(&fixture.sync(&[], &[]));
        assert!(fixture.root.exists("done"));
    }
}
