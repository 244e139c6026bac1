//! Scripts of the module and of the administrator.

use dkms_engine::plan::Verb;

use crate::fixture::{BUILT, Fixture, K1, PLACED, clean, failed};

#[test]
fn adding_ends_as_post_add_ends_but_adds() {
    let mut fixture = Fixture::new();
    fixture.script("POST_ADD", "echo $1 $2; pwd; exit 7");
    fixture.change = |machine| machine.options.only_added = true;
    let message = failed(&fixture.command(Verb::Add, "foo/1.0"), 7);
    assert!(message.contains("foo/1.0: an argument"), "{message}");
    assert!(message.contains("usr/src/foo-1.0"), "{message}");
    assert!(fixture.root.exists("var/lib/dkms/foo/1.0/source"));
    // Where it is added along with something else, its result does not matter.
    clean(&fixture.command(Verb::Remove, "foo/1.0"));
    fixture.change = |_| {};
    clean(&fixture.install());
    assert!(fixture.heard.lines.iter().any(|line| line.contains("POST_ADD script failed")));
}

#[test]
fn pre_install_can_object() {
    let mut fixture = Fixture::new();
    fixture.script("PRE_INSTALL", "echo not today; exit 3");
    let message = failed(&fixture.install(), 101);
    assert!(message.contains("not today"), "{message}");
    assert!(!fixture.root.exists(PLACED));
    fixture.change = |machine| machine.options.force_install = true;
    clean(&fixture.install());
    assert!(fixture.root.exists(PLACED));
}

#[test]
fn the_administrators_script_takes_the_place_of_the_modules() {
    let mut fixture = Fixture::new();
    fixture.script("POST_INSTALL", "echo the module says");
    fixture.root.executable("etc/dkms/foo/POST_INSTALL.sh", "#!/bin/sh\npwd\n");
    clean(&fixture.install());
    let said = fixture.heard.lines.join("\n");
    assert!(said.ends_with("/etc/dkms/foo"), "{said}");
}

#[test]
fn post_build_sees_the_new_result_and_adds_to_it() {
    let mut fixture = Fixture::new();
    fixture.script("PRE_BUILD", "echo before");
    fixture.script(
        "POST_BUILD",
        "cd ../$kernelver/$arch && ls module && cp ../../build/dkms.conf kept.conf && echo after",
    );
    clean(&fixture.install());
    assert!(fixture.root.exists(format!("{BUILT}/kept.conf")));
    let log = fixture.root.read(format!("{BUILT}/log/make.log"));
    let steps: Vec<&str> = log
        .lines()
        .filter(|line| !line.is_empty())
        .filter(|line| !line.starts_with("# elapsed") && !line.starts_with("make: "))
        .skip(2) // the head and the date
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
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "a run after it has nothing to do");
}

#[test]
fn a_failing_post_build_leaves_the_old_result() {
    let mut fixture = Fixture::new();
    fixture.script("POST_BUILD", "exit $(cat /dev/null $ANSWER)");
    clean(&fixture.install());
    let old = fixture.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1");
    fixture.script("POST_BUILD", "rm ../$kernelver/$arch/module/*; exit 9");
    let message = failed(&fixture.sync(&["foo-1.0"], &[K1]), 9);
    assert!(message.contains("POST_BUILD"), "{message}");
    assert_eq!(fixture.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1"), old);
    assert!(fixture.root.exists(PLACED));
    // Without an old result there is none.
    clean(&fixture.command(Verb::Unbuild, "foo/1.0"));
    failed(&fixture.command(Verb::Build, "foo/1.0"), 9);
    assert!(!fixture.root.exists("var/lib/dkms/foo/1.0/7.2.12-arch1-1"));
}

#[test]
fn notes_what_it_was_built_upon() {
    let mut fixture = Fixture::new();
    let lines = "BUILD_DEPENDS=bar\nBUILD_DEPENDS_REBUILD=yes";
    fixture.root.source("foo", "1.0").conf_line(lines);
    fixture.root.source("bar", "2.1");
    clean(&fixture.sync(&["foo-1.0", "bar-2.1"], &[K1]));
    assert_eq!(fixture.root.read(format!("{BUILT}/.dep_bar")), "2.1\n");
}

#[test]
fn the_administrators_command_runs_after_a_change() {
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
    clean(&fixture.sync(&["foo-1.0"], &[K1]));
    assert!(!fixture.root.exists("var/lib/dkms/post_transaction.log"), "nothing changed");
}
