//! Tests that each dkms.conf is evaluated as rarely as possible, and again when files that it may
//! read have changed.

use dkms_engine::plan::Verb;
use rstest::rstest;
use testroot::FakeSource;

use crate::fixture::{Fixture, K1, K2, assert_clean, assert_failed};

/// Adds a module whose dkms.conf records each evaluation.
fn recording<'a>(fixture: &'a Fixture, name: &str) -> FakeSource<'a> {
    let file = fixture.root.path().join("evaluated");
    fixture
        .root
        .source(name, "1.0")
        .conf_line(&format!("echo {name} $kernelver >>{}; sleep 0.01", file.display()))
}

/// Returns the evaluations since the last call of this function, as sorted lines `MODULE KERNEL`.
fn evaluations(fixture: &Fixture) -> Vec<String> {
    let text = fixture.root.read("evaluated");
    fixture.root.write("evaluated", "");
    let mut evaluations: Vec<String> = text.lines().map(str::to_owned).collect();
    evaluations.sort();
    evaluations
}

#[test]
fn conf_is_evaluated_once_for_each_kernel() {
    let mut fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        recording(&fixture, name);
    }
    assert_clean(&fixture.sync(&[], &[K1]));
    evaluations(&fixture);

    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K2]));
    let once = ["a", "b", "c"].map(|name| format!("{name} {K2}"));
    assert_eq!(evaluations(&fixture), once);
    for name in ["a", "b", "c"] {
        assert!(fixture.root.exists(format!("usr/lib/modules/{K2}/updates/dkms/{name}.ko")));
    }
}

#[test]
fn conf_is_evaluated_again_after_its_dependency_has_been_built() {
    let mut fixture = Fixture::new();
    fixture.root.source("spl", "1.0");
    let built = fixture.root.path().join("var/lib/dkms/spl/1.0");
    recording(&fixture, "zfs")
        .conf_line("BUILD_DEPENDS=spl")
        .conf_line(&format!("[[ -d {}/$kernelver ]] && BUILT_MODULE_NAME=zfs", built.display()));
    assert_clean(&fixture.sync(&[], &[K1]));
    evaluations(&fixture);

    fixture.root.kernel(K2).pkgbase("linux").headers();
    assert_clean(&fixture.sync(&[], &[K2]));
    assert_eq!(evaluations(&fixture), [format!("zfs {K2}"), format!("zfs {K2}")]);
}

/// Adds foo/1.0, whose Makefile builds foo, bar and baz. Its dkms.conf lists foo and the objects
/// named in a file. `list` is a shell expression for the name of that file.
fn listing_objects(fixture: &Fixture, list: &str) {
    let lines = format!(
        "DEST_MODULE_LOCATION[0]=/extra\nPRE_BUILD=pre.sh\n\
         for name in $(cat {list}); do\n\
         BUILT_MODULE_NAME+=(\"$name\"); DEST_MODULE_LOCATION+=(/extra)\n\
         done 2>/dev/null"
    );
    let source = fixture.root.source("foo", "1.0").objects(&["foo", "bar", "baz"]);
    source
        .conf("PACKAGE_NAME=foo\nPACKAGE_VERSION=1.0\nBUILT_MODULE_NAME[0]=foo\n")
        .conf_line(&lines);
    fixture.root.executable("usr/src/foo-1.0/pre.sh", "#!/bin/sh\n");
}

#[test]
fn objects_listed_once_the_module_is_added_are_installed() {
    let lists = [
        "$([[ -L $dkms_tree/$module/$module_version/source ]] && echo list || echo none)",
        "list.$(readlink $dkms_tree/foo/1.0/source | tr -cd a-z)",
    ];
    for list in lists {
        let mut fixture = Fixture::new();
        listing_objects(&fixture, list);
        for name in ["list", "list.usrsrcfoo"] {
            fixture.root.write(format!("usr/src/foo-1.0/{name}"), "bar\nbaz\n");
        }
        assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
        for name in ["foo.ko", "bar.ko", "baz.ko"] {
            assert!(fixture.installed(K1, name), "{list}: {name}");
        }
        assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "{list}");
    }
}

#[rstest]
#[case::post_build_beside_the_builds(
    "POST_BUILD",
    "$dkms_tree/foo/1.0/list",
    "echo bar baz >../list"
)]
#[case::post_build_for_the_administrator(
    "POST_BUILD",
    "../../../etc/list",
    "for name in b*.ko; do echo ${name%.ko}; done >../../../../../../etc/list"
)]
#[case::post_build_makes_the_objects(
    "POST_BUILD",
    "$dkms_tree/foo/1.0/list",
    "mv bar.ko baz.ko ../$kernelver/$arch/module; echo bar baz >../list"
)]
#[case::pre_build("PRE_BUILD", "$dkms_tree/foo/1.0/list", "echo bar baz >../list")]
fn objects_listed_by_a_script_of_the_build_are_installed(
    #[case] directive: &str,
    #[case] list: &str,
    #[case] script: &str,
) {
    let mut fixture = Fixture::new();
    listing_objects(&fixture, list);
    fixture.script(directive, script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    let installed =
        |fixture: &Fixture| ["foo.ko", "bar.ko", "baz.ko"].map(|name| fixture.installed(K1, name));
    assert_eq!(installed(&fixture), [true; 3]);
    assert_eq!(fixture.sync(&[], &[K1]).finished.len(), 0, "a second run has something to do");
    assert_clean(&fixture.command(Verb::Uninstall, "foo/1.0"));
    assert_eq!(installed(&fixture), [false; 3]);
}

#[test]
fn object_listed_by_post_build_but_not_built_fails() {
    let mut fixture = Fixture::new();
    listing_objects(&fixture, "$dkms_tree/foo/1.0/list");
    fixture.script("POST_BUILD", "echo qux >../list");
    let message = assert_failed(&fixture.sync(&["foo-1.0"], &[K1]), 7);
    assert!(message.contains("qux.ko"), "{message}");
    assert!(!fixture.installed(K1, "foo.ko"));
}

#[test]
fn object_no_longer_listed_after_post_build_is_not_installed() {
    let mut fixture = Fixture::new();
    let lines = "[[ -e $dkms_tree/foo/1.0/seen ]] && unset 'BUILT_MODULE_NAME[1]' 'DEST_MODULE_LOCATION[1]'";
    fixture.root.source("foo", "1.0").objects(&["foo", "bar"]).conf_line(lines);
    fixture.script("POST_BUILD", "touch ../seen");
    assert_clean(&fixture.sync(&["foo-1.0"], &[K1]));
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(!fixture.installed(K1, "bar.ko"));
}
