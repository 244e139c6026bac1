//! Tests of the dkms.conf, headers and environment of a build.

use std::fs;

use dkms_engine::dkms_tree::BuildCache;
use dkms_engine::facts::{self, Scope};
use dkms_engine::{act, plan};
use rstest::rstest;

use crate::fixture::{BUILT, Fixture, K1, PLACED, assert_clean, assert_failed, sync};

#[test]
fn command_line_directives_override_all_confs() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("PRE_BUILD=none.sh");
    fixture.root.write("etc/dkms/foo.conf", "PRE_BUILD=nor-this.sh\n");
    fixture.root.executable("usr/src/foo-1.0/own.sh", "#!/bin/sh\n");
    fixture.change =
        |machine| machine.options.directives = vec![("PRE_BUILD".into(), "own.sh a".into())];
    assert_clean(&fixture.install());
    let log = fixture.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("/foo/1.0/build/own.sh a\n"), "{log}");
    // Environment variables can set directives, but nothing else.
    fixture.change = |machine| {
        machine.env = machine.env.clone().with("DKMS_DIRECTIVE_A", "PRE_BUILD=own.sh a='b c'");
        machine.env = machine.env.clone().with("DKMS_DIRECTIVE_B", "source_tree=/nowhere");
    };
    assert_clean(&fixture.install());
    let log = fixture.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("/foo/1.0/build/own.sh a='b c'\n"), "{log}");
}

#[test]
fn another_file_can_replace_dkms_conf() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let conf = fixture.root.read("usr/src/foo-1.0/dkms.conf");
    fixture.root.write("etc/other.conf", format!("{conf}DEST_MODULE_NAME=other\n"));
    fixture.change = |machine| {
        let file = machine.trees.root.join("etc/other.conf");
        machine.options.conf = Some(file);
        machine.options.module = Some("foo/1.0".parse().unwrap());
    };
    assert_clean(&fixture.install());
    assert!(fixture.root.exists(PLACED.replace("foo.ko", "other.ko")));
}

#[test]
fn headers_and_kernel_config_can_be_elsewhere() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0").conf_line("BUILD_EXCLUSIVE_CONFIG=CONFIG_OTHER");
    let modules = fixture.root.path().join("usr/lib/modules").join(K1);
    fs::rename(modules.join("build"), fixture.root.path().join("headers")).unwrap();
    assert_failed(&fixture.install(), 21);
    fixture.change =
        |machine| machine.options.kernel_source = Some(machine.trees.root.join("headers"));
    assert_failed(&fixture.install(), 77);
    fixture.root.write("config", "CONFIG_OTHER=y\n");
    fixture.change = |machine| {
        machine.options.kernel_source = Some(machine.trees.root.join("headers"));
        machine.options.kernel_config = Some(machine.trees.root.join("config"));
    };
    assert_clean(&fixture.install());
}

#[test]
fn build_environment_is_passed_to_builds() {
    let mut fixture = Fixture::new();
    fixture.script("PRE_BUILD", "echo CC=$CC; printf 'WORD=%s\\n' \"$WORD\"; echo OWN=$OWN");
    let headers = format!("usr/lib/modules/{K1}/build");
    fixture.root.write(format!("{headers}/.kernelvariables"), "CC = gcc-$(shell echo 99)\n");
    fixture.root.write("etc/dkms/framework.conf", "build_environment=/etc/dkms/env\n");
    fixture.root.write("etc/dkms/env", "echo noise\nexport WORD='a  \"b\"\n$c'\nOWN=no\n");
    assert_clean(&fixture.install());
    let log = fixture.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("CC=gcc-99\nWORD=a  \"b\"\n$c\nOWN=\n"), "{log}");
}

/// Returns the number of builds in the cache.
fn cached(fixture: &Fixture) -> usize {
    BuildCache::of(&fixture.machine().trees).entries().len()
}

#[rstest]
#[case::changed_file("usr/src/foo-1.0/foo.c")]
#[case::new_file("usr/src/foo-1.0/dir/more.h")]
#[case::new_header("usr/lib/modules/7.2.12-arch1-1/build/include/linux/new.h")]
fn build_from_other_inputs_than_planned_is_repeated_by_the_next_run(#[case] path: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    let before = fixture.root.exists(path).then(|| fixture.root.read(path));
    let machine = fixture.machine();
    let facts = facts::read(&machine, &Scope::default());
    let plan = plan::make(&sync(&["foo-1.0"], &[]), &facts).unwrap();
    // pacman or a user changes a file after the plan was made.
    fixture.root.write(path, "/* changed */\nMODULE_VERSION(\"1.0\");\n");
    assert_clean(&act::carry_out(&plan, &facts, &machine, &mut fixture.output));
    assert_eq!((fixture.builds(), cached(&fixture)), (1, 0));
    // The next run builds again even if the inputs are as they were.
    match before {
        Some(text) => fixture.root.write(path, text),
        None => fixture.root.remove(path),
    }
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!((fixture.builds(), cached(&fixture)), (2, 1));
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());
}

#[test]
fn headers_that_change_during_make_are_noticed() {
    let mut fixture = Fixture::new();
    let make = "MAKE='make -C $kernel_source_dir M=$dkms_tree/foo/1.0/build && \
                touch $kernel_source_dir/include/linux/module.h && LINE'";
    let with = |line: &str| make.replace("LINE", line);
    let rewrites = "cp $kernel_source_dir/include/linux/module.h x && \
                    rm $kernel_source_dir/include/linux/module.h && \
                    cp x $kernel_source_dir/include/linux/module.h";
    // A module may write the same files each time.
    fixture.root.source("foo", "1.0").conf_line(&with(rewrites));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(cached(&fixture), 1);
    assert!(fixture.plan(&sync(&["foo-1.0"], &[K1])).is_empty());

    let adds = with("echo > $kernel_source_dir/include/linux/more.h");
    fixture.root.source("foo", "1.0").conf_line(&adds);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_eq!(cached(&fixture), 1, "a build from changing headers is not cached");
    fixture.root.remove(format!("usr/lib/modules/{K1}/build/include/linux/more.h"));
    assert!(!fixture.plan(&sync(&["foo-1.0"], &[])).is_empty());
}

#[test]
fn source_with_only_a_conf_is_refused() {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.remove("usr/src/foo-1.0/Makefile");
    fixture.root.remove("usr/src/foo-1.0/foo.c");
    assert_failed(&fixture.install(), 8);
}
