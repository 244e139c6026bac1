//! Tests of modules whose own scripts write into their source.

use std::fs;

use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{BUILT, Fixture, K1, K2, assert_clean, assert_failed, sync};

const SOURCE: &str = "usr/src/foo-1.0";

/// Adds two kernels, and the module foo/1.0 with a script for `directive`. In the script, `$src` is
/// the module's source.
fn module(directive: &str, script: &str) -> Fixture {
    module_for(&[K1, K2], directive, script)
}

fn module_for(kernels: &[&str], directive: &str, script: &str) -> Fixture {
    let mut fixture = Fixture::without_kernels();
    fixture.jobs = Some(2);
    for release in kernels {
        fixture.root.kernel(release).pkgbase("linux").headers();
    }
    fixture.root.source("foo", "1.0").file("notes.txt", "by the author\n");
    add_script(&fixture, directive, script);
    fixture
}

/// Adds a script for `directive` to foo/1.0. If `directive` is MAKE, the script ends with make.
fn add_script(fixture: &Fixture, directive: &str, script: &str) {
    let root = fixture.root.path().display();
    let script = format!("src={root}/{SOURCE}; {script}");
    if directive == "MAKE" {
        let make = format!(
            "make KERNELRELEASE=$kernelver -C {root}/usr/lib/modules/$kernelver/build M=$PWD"
        );
        fixture.root.executable(format!("{SOURCE}/mk"), &format!("#!/bin/sh\n{script}\n{make}\n"));
        let conf = fixture.root.read(format!("{SOURCE}/dkms.conf")) + "MAKE=./mk\n";
        fixture.root.write(format!("{SOURCE}/dkms.conf"), conf);
    } else {
        fixture.script(directive, &script);
    }
}

/// Returns the digest of the source in the record of a build.
#[track_caller]
fn recorded_source(fixture: &Fixture, release: &str) -> String {
    let record = fixture.root.read(BUILT.replace(K1, release) + "/alpm-dkms.toml");
    record.lines().find(|line| line.starts_with("source =")).unwrap().to_owned()
}

fn plan(fixture: &Fixture) -> String {
    fixture.plan(&sync(&["foo-1.0"], &[])).to_string()
}

#[track_caller]
fn assert_nothing_to_do(fixture: &Fixture) {
    assert!(fixture.plan(&sync(&["foo-1.0"], &[])).is_empty(), "{}", plan(fixture));
}

/// A script that writes a file with different content each time.
const STAMP: &str = "date +%N > $src/stamp; echo $kernelver >> $src/stamp";
/// A script that appends a different line to a file of the source each time.
const EDIT: &str = "echo $kernelver $(date +%N) >> $src/notes.txt";
const REPLACE: &str = "date +%N > $src/new; mv $src/new $src/notes.txt";
const MAKE_DIR: &str =
    "mkdir -p $src/gen/sub; date +%N > $src/gen/sub/$kernelver.h; rm -f $src/gone";

#[rstest]
#[case::add_generates("POST_ADD", STAMP)]
#[case::add_edits("POST_ADD", EDIT)]
#[case::build_generates("PRE_BUILD", STAMP)]
#[case::build_replaces("PRE_BUILD", REPLACE)]
#[case::build_makes_directories("PRE_BUILD", MAKE_DIR)]
#[case::built_edits("POST_BUILD", EDIT)]
#[case::before_installation("PRE_INSTALL", REPLACE)]
#[case::installation_generates("POST_INSTALL", STAMP)]
#[case::installation_edits("POST_INSTALL", EDIT)]
#[case::installation_makes_directories("POST_INSTALL", MAKE_DIR)]
fn files_written_by_scripts_are_not_changes(#[case] directive: &str, #[case] script: &str) {
    let mut fixture = module(directive, script);
    fixture.root.write(format!("{SOURCE}/gone"), "");
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2]));
    assert_nothing_to_do(&fixture);
    assert_eq!(recorded_source(&fixture, K1), recorded_source(&fixture, K2));
    let builds = fixture.builds();

    // In the next run, the module is built for a new kernel from the same source.
    let k3 = "7.2.14-arch1-1";
    fixture.root.kernel(k3).pkgbase("linux").headers();
    fixture.root.write(format!("{SOURCE}/gone"), "");
    assert_clean(&fixture.sync(&[], &[k3]));
    assert_eq!(fixture.builds(), builds + 1);
    assert_eq!(recorded_source(&fixture, k3), recorded_source(&fixture, K1));
    assert_nothing_to_do(&fixture);

    // A change by the user triggers one rebuild.
    fixture.root.write(format!("{SOURCE}/other.h"), "/* by the user */\n");
    assert!(plan(&fixture).contains("source changed"), "{}", plan(&fixture));
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2, k3]));
    assert_nothing_to_do(&fixture);
    fixture.root.remove(format!("{SOURCE}/other.h"));
    assert!(plan(&fixture).contains("source changed"), "{}", plan(&fixture));
}

#[rstest]
#[case::one_file(STAMP)]
#[case::a_tree("cp -r . $src/built; date +%N > $src/built/date")]
fn files_added_by_make_are_not_changes(
    #[case] script: &str,
    #[values(false, true)] without_privileges: bool,
) {
    let mut fixture = module("MAKE", script);
    fixture.without_privileges = without_privileges;
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2]));
    assert_nothing_to_do(&fixture);
    assert_eq!(recorded_source(&fixture, K1), recorded_source(&fixture, K2));
}

#[rstest]
#[case::appended("echo '/* edited */' >> $src/foo.c")]
#[case::replaced("echo '/* edited */' > $src/x; mv $src/x $src/notes.txt")]
fn file_that_changes_while_make_runs_is_rebuilt_once(#[case] script: &str) {
    let script = format!("grep -q edited $src/notes.txt $src/foo.c || {{ {script}; }}");
    let mut fixture = module_for(&[K1], "MAKE", &script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    // As far as alpm-dkms knows, the user may have made the change.
    assert!(plan(&fixture).contains("source changed"), "{}", plan(&fixture));
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    assert_eq!(fixture.builds(), 2);
    assert_nothing_to_do(&fixture);
}

#[rstest]
#[case::one_kernel(&[K1])]
#[case::two_kernels(&[K1, K2])]
fn make_that_always_changes_files_is_recognised(#[case] kernels: &[&str]) {
    let mut fixture = module_for(kernels, "MAKE", EDIT);
    assert_clean(&fixture.sync(&["foo-1.0"], kernels));
    assert_clean(&fixture.sync(&["foo-1.0"], kernels));
    assert_nothing_to_do(&fixture);
}

#[rstest]
#[case::by_variable("MAKE='./mk ${source_tree}'", EDIT)]
#[case::by_path("MAKE='./mk /usr/src/foo-1.0'", REPLACE)]
fn make_that_names_the_source_may_change_files(#[case] make: &str, #[case] script: &str) {
    let mut fixture = module("MAKE", script);
    let conf = fixture.root.read(format!("{SOURCE}/dkms.conf"));
    fixture.root.write(format!("{SOURCE}/dkms.conf"), conf.replace("MAKE=./mk", make));
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2]));
    assert_nothing_to_do(&fixture);
    assert_eq!(recorded_source(&fixture, K1), recorded_source(&fixture, K2));
}

#[rstest]
#[case::generated("POST_INSTALL", STAMP)]
#[case::edited("POST_INSTALL", REPLACE)]
#[case::generated_by_the_build("PRE_BUILD", STAMP)]
fn reinstalled_package_is_not_a_change(#[case] directive: &str, #[case] script: &str) {
    let mut fixture = module(directive, script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2]));
    let builds = fixture.builds();
    // pacman rewrites the files of the package, and leaves other files alone.
    fixture.root.write(format!("{SOURCE}/new"), "by the author\n");
    let notes = fixture.root.at(format!("{SOURCE}/notes.txt"));
    fs::rename(fixture.root.at(format!("{SOURCE}/new")), notes).unwrap();
    assert_nothing_to_do(&fixture);
    // An update of the package with other contents is a change.
    fixture.root.write(format!("{SOURCE}/foo.c"), "/* update */\nMODULE_VERSION(\"1.0\");\n");
    assert!(plan(&fixture).contains("source changed"), "{}", plan(&fixture));
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2]));
    assert!(fixture.builds() > builds);
    assert_nothing_to_do(&fixture);
}

#[rstest]
#[case::pre_build("PRE_BUILD", STAMP)]
#[case::edit("PRE_BUILD", EDIT)]
#[case::make("MAKE", STAMP)]
fn failure_is_remembered_even_if_the_build_writes_into_the_source(
    #[case] directive: &str,
    #[case] script: &str,
) {
    let mut fixture = module_for(&[K1], directive, script);
    fixture.root.write(format!("{SOURCE}/foo.c"), "#error no\n");
    assert_failed(&fixture.sync(&["foo-1.0"], &[K1]), 10);
    let builds = fixture.builds();
    fixture.sync(&[], &[K1]);
    assert_eq!(fixture.builds(), builds, "the failed build was repeated");
    fixture.root.write(format!("{SOURCE}/foo.c"), "MODULE_VERSION(\"1.0\");\n");
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    assert!(fixture.builds() > builds);
}

#[rstest]
#[case::generated(STAMP)]
#[case::edited(REPLACE)]
fn module_with_a_post_install_that_writes_into_the_source_is_cached(#[case] script: &str) {
    let mut fixture = module("POST_INSTALL", script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1, K2]));
    let builds = fixture.builds();
    fixture.root.remove(format!("usr/lib/modules/{K1}"));
    assert_clean(&fixture.sync(&[], &[K1]));
    fixture.root.kernel(K1).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert_eq!(fixture.builds(), builds, "the module was compiled again");
    assert_nothing_to_do(&fixture);
}

#[rstest]
#[case::uninstalled(Verb::Uninstall)]
#[case::removed(Verb::Remove)]
fn files_written_by_post_remove_are_not_changes(#[case] verb: Verb) {
    let mut fixture = module("POST_REMOVE", STAMP);
    add_script(&fixture, "POST_INSTALL", EDIT);
    assert_clean(&fixture.install());
    let before = recorded_source(&fixture, K1);
    assert_clean(&fixture.command(verb, "foo/1.0"));
    assert!(fixture.root.exists(format!("{SOURCE}/stamp")));
    assert_clean(&fixture.install());
    assert_eq!(recorded_source(&fixture, K1), before);
    assert_eq!(fixture.builds(), 1, "the module was compiled again");
}

#[test]
fn installations_between_the_builds_of_a_module_do_not_disturb_them() {
    let kernels = [K1, K2, "7.2.14-arch1-1", "7.2.15-arch1-1"];
    let script = "date +%N > $src/stamp; sleep 0.3; date >> $src/stamp";
    let mut fixture = module_for(&kernels, "POST_INSTALL", script);
    // Make the builds end one after the other.
    add_script(&fixture, "PRE_BUILD", "n=${kernelver#7.2.1}; sleep 0.${n%-arch1-1}");
    assert_clean(&fixture.sync(&["foo-1.0"], &kernels));
    assert_eq!(fixture.builds(), 4, "a build was repeated");
    for release in kernels {
        assert_eq!(recorded_source(&fixture, release), recorded_source(&fixture, K1));
        let record = fixture.root.read(BUILT.replace(K1, release) + "/alpm-dkms.toml");
        assert!(!record.contains("changes_source"), "{record}");
    }
    assert!(fixture.plan(&sync(&["foo-1.0"], &kernels)).is_empty());
}
