//! Where a build takes its conf, its headers and its environment from.

use super::*;

#[test]
fn directives_of_the_command_line_come_last() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0").conf_line("PRE_BUILD=none.sh");
    machine.root.write("etc/dkms/foo.conf", "PRE_BUILD=nor-this.sh\n");
    machine.executable("usr/src/foo-1.0/own.sh", "#!/bin/sh\n");
    machine.change =
        |machine| machine.options.directives = vec![("PRE_BUILD".into(), "own.sh a".into())];
    clean(&machine.install());
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("/foo/1.0/build/own.sh a\n"), "{log}");
    // As a variable, too; but no more than directives can be set.
    machine.change = |machine| {
        machine.env = machine.env.clone().with("DKMS_DIRECTIVE_A", "PRE_BUILD=own.sh a='b c'");
        machine.env = machine.env.clone().with("DKMS_DIRECTIVE_B", "source_tree=/nowhere");
    };
    clean(&machine.install());
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("/foo/1.0/build/own.sh a='b c'\n"), "{log}");
}

#[test]
fn another_file_can_stand_for_the_conf() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    let conf = machine.root.read("usr/src/foo-1.0/dkms.conf");
    machine.root.write("etc/other.conf", format!("{conf}DEST_MODULE_NAME=other\n"));
    machine.change = |machine| {
        let file = machine.trees.root.join("etc/other.conf");
        machine.options.conf = Some(file);
        machine.options.module = Some("foo/1.0".parse().unwrap());
    };
    clean(&machine.install());
    assert!(machine.root.exists(PLACED.replace("foo.ko", "other.ko")));
}

#[test]
fn headers_and_configuration_can_be_elsewhere() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0").conf_line("BUILD_EXCLUSIVE_CONFIG=CONFIG_OTHER");
    let modules = machine.root.path().join("usr/lib/modules").join(K);
    fs::rename(modules.join("build"), machine.root.path().join("headers")).unwrap();
    failed(&machine.install(), 21);
    machine.change =
        |machine| machine.options.kernel_source = Some(machine.trees.root.join("headers"));
    failed(&machine.install(), 77);
    machine.root.write("config", "CONFIG_OTHER=y\n");
    machine.change = |machine| {
        machine.options.kernel_source = Some(machine.trees.root.join("headers"));
        machine.options.kernel_config = Some(machine.trees.root.join("config"));
    };
    clean(&machine.install());
}

#[test]
fn builds_get_the_environment_that_is_set_for_them() {
    let mut machine = TestMachine::new();
    machine.script("PRE_BUILD", "echo CC=$CC; printf 'WORD=%s\\n' \"$WORD\"; echo OWN=$OWN");
    let headers = format!("usr/lib/modules/{K}/build");
    machine.root.write(format!("{headers}/.kernelvariables"), "CC = gcc-$(shell echo 99)\n");
    machine.root.write("etc/dkms/framework.conf", "build_environment=/etc/dkms/env\n");
    machine.root.write("etc/dkms/env", "echo noise\nexport WORD='a  \"b\"\n$c'\nOWN=no\n");
    clean(&machine.install());
    let log = machine.root.read(format!("{BUILT}/log/make.log"));
    assert!(log.contains("CC=gcc-99\nWORD=a  \"b\"\n$c\nOWN=\n"), "{log}");
}

#[test]
fn a_source_that_is_only_a_conf_is_refused() {
    let mut machine = TestMachine::new();
    machine.root.source("foo", "1.0");
    machine.root.remove("usr/src/foo-1.0/Makefile");
    machine.root.remove("usr/src/foo-1.0/foo.c");
    failed(&machine.install(), 8);
}
