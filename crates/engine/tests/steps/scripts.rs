//! The module's and the administrator's scripts.

use super::*;

#[test]
fn adding_ends_as_post_add_ends_but_adds() {
    let mut machine = TestMachine::new();
    machine.script("POST_ADD", "echo $1 $2; pwd; exit 7");
    machine.change = |machine| machine.options.only_added = true;
    let message = failed(&machine.command(Verb::Add, "foo/1.0"), 7);
    assert!(message.contains("foo/1.0: an argument"), "{message}");
    assert!(message.contains("usr/src/foo-1.0"), "{message}");
    assert!(machine.root.exists("var/lib/dkms/foo/1.0/source"));
    // Where it is added along with something else, its result does not matter.
    clean(&machine.command(Verb::Remove, "foo/1.0"));
    machine.change = |_| {};
    clean(&machine.install());
    assert!(machine.heard.0.iter().any(|line| line.contains("POST_ADD script failed")));
}

#[test]
fn pre_install_can_object() {
    let mut machine = TestMachine::new();
    machine.script("PRE_INSTALL", "echo not today; exit 3");
    let message = failed(&machine.install(), 101);
    assert!(message.contains("not today"), "{message}");
    assert!(!machine.root.exists(PLACED));
    machine.change = |machine| machine.options.force_install = true;
    clean(&machine.install());
    assert!(machine.root.exists(PLACED));
}

#[test]
fn the_administrators_script_takes_the_place_of_the_modules() {
    let mut machine = TestMachine::new();
    machine.script("POST_INSTALL", "echo the module says");
    machine.executable("etc/dkms/foo/POST_INSTALL.sh", "#!/bin/sh\npwd\n");
    clean(&machine.install());
    let said = machine.heard.0.join("\n");
    assert!(said.ends_with("/etc/dkms/foo"), "{said}");
}

#[test]
fn post_build_sees_the_new_result_and_adds_to_it() {
    let mut machine = TestMachine::new();
    machine.script("PRE_BUILD", "echo before");
    machine.script(
        "POST_BUILD",
        "cd ../$kernelver/$arch && ls module && cp ../../build/dkms.conf kept.conf && echo after",
    );
    clean(&machine.install());
    assert!(machine.root.exists(format!("{BUILT}/kept.conf")));
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    let steps: Vec<&str> = log
        .lines()
        .filter(|line| !line.is_empty())
        .filter(|line| !line.starts_with("# elapsed") && !line.starts_with("make: "))
        .skip(2) // the head and the date
        .collect();
    let rule = "-".repeat(64);
    let root = machine.root.path().display();
    let make = format!(
        "# command: make KERNELRELEASE={K} -C {root}/usr/lib/modules/{K}/build \
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
    assert_eq!(machine.sync(&[]).finished.len(), 0, "a run after it has nothing to do");
}

#[test]
fn a_failing_post_build_leaves_the_old_result() {
    let mut machine = TestMachine::new();
    machine.script("POST_BUILD", "exit $(cat /dev/null $ANSWER)");
    clean(&machine.install());
    let old = machine.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1");
    machine.script("POST_BUILD", "rm ../$kernelver/$arch/module/*; exit 9");
    let message = failed(&machine.sync(&["foo-1.0"]), 9);
    assert!(message.contains("POST_BUILD"), "{message}");
    assert_eq!(machine.root.listing("var/lib/dkms/foo/1.0/7.2.12-arch1-1"), old);
    assert!(machine.root.exists(PLACED));
    // Without an old result there is none.
    clean(&machine.command(Verb::Unbuild, "foo/1.0"));
    failed(&machine.command(Verb::Build, "foo/1.0"), 9);
    assert!(!machine.root.exists("var/lib/dkms/foo/1.0/7.2.12-arch1-1"));
}

#[test]
fn notes_what_it_was_built_upon() {
    let mut machine = TestMachine::new();
    let lines = "BUILD_DEPENDS=bar\nBUILD_DEPENDS_REBUILD=yes";
    machine.root.source("foo", "1.0").conf_line(lines);
    machine.root.source("bar", "2.1");
    clean(&machine.sync(&["foo-1.0", "bar-2.1"]));
    assert_eq!(machine.root.read(format!("{BUILT}/.dep_bar")), "2.1\n");
}
