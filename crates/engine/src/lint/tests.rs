//! Tests of each rule, with a source that violates it and one that does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rstest::rstest;
use testroot::TestRoot;

use super::*;

/// A dkms.conf of six lines that causes no findings in the source that [`source`] writes.
const CONF: &str = r#"PACKAGE_NAME="foo"
PACKAGE_VERSION="1.0"
BUILT_MODULE_NAME[0]="foo"
DEST_MODULE_LOCATION[0]="/extra"
BUILD_EXCLUSIVE_KERNEL_MIN="6.1"
AUTOINSTALL="yes"
"#;

/// The Makefile of most modules. By default, it builds for the running kernel.
const MAKEFILE: &str = "obj-m := foo.o\nKVER ?= $(shell uname -r)\nKDIR ?= /lib/modules/$(KVER)/build\n\
                        all:\n\t$(MAKE) -C $(KDIR) M=$(CURDIR)\n";

/// Writes a source without findings, and then the given files. A file that begins with `#!` is
/// executable.
fn source(root: &TestRoot, dir: &str, conf: &str, files: &[(&str, &str)]) {
    let usual = [("dkms.conf", conf), ("Makefile", MAKEFILE), ("foo.c", "/* code */\n")];
    for (name, text) in usual.iter().chain(files) {
        let path = format!("{dir}/{name}");
        root.write(&path, text);
        if text.starts_with("#!") {
            fs::set_permissions(root.at(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Returns the findings in a source, each as `SEVERITY FILE:LINE: PROBLEM`.
fn findings_in(root: &TestRoot, dir: &str) -> Vec<String> {
    let machine = Machine::for_hook(root.path());
    let kernel = "7.2.12-arch1-1".parse().unwrap();
    let found = lint(&machine, &root.at(dir), &kernel).unwrap();
    let shown = |it: Finding| {
        let line = it.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{:?} {}{line}: {}", it.severity, it.file.display(), it.problem)
    };
    found.into_iter().map(shown).collect()
}

fn findings(conf: &str, files: &[(&str, &str)]) -> Vec<String> {
    let root = TestRoot::new();
    source(&root, "srv/foo", conf, files);
    findings_in(&root, "srv/foo")
}

/// Asserts that the dkms.conf [`CONF`] followed by `extra`, together with `files`, causes exactly
/// the findings `want`.
#[track_caller]
fn assert_finds(extra: &str, files: &[(&str, &str)], want: &[&str]) {
    assert_eq!(findings(&format!("{CONF}{extra}"), files), want);
}

#[rstest]
#[case::nothing("", &[])]
#[case::refused("DEST_MODULE_LOCATION[0]=/opt", &[
    "Error dkms.conf:4: DEST_MODULE_LOCATION[0] must be below /kernel, /updates or /extra: \"/opt\"",
])]
#[case::hole("BUILT_MODULE_NAME[2]=bar\nDEST_MODULE_LOCATION[2]=/extra", &[
    "Error dkms.conf: BUILT_MODULE_NAME[1] is not set",
    "Error dkms.conf: DEST_MODULE_LOCATION[1] is not set",
])]
#[case::object_without_a_location("BUILT_MODULE_NAME[1]=foo2", &[
    "Error dkms.conf:7: DEST_MODULE_LOCATION[1] is not set",
])]
#[case::duplicate("BUILT_MODULE_NAME[1]=foo\nDEST_MODULE_NAME[1]=x\nDEST_MODULE_LOCATION[1]=/extra", &[
    "Error dkms.conf:7: BUILT_MODULE_NAME[1] names the same object as an earlier entry",
])]
#[case::yes_or_no("\nBUILD_DEPENDS_REBUILD=maybe", &[
    "Error dkms.conf:8: BUILD_DEPENDS_REBUILD must be yes or no: \"maybe\"",
])]
#[case::exit("exit 1", &["Error dkms.conf: evaluation ended early: the file exits the shell"])]
#[case::bash_error("STRIP = no", &["Error dkms.conf:7: bash: STRIP: command not found"])]
fn reports_what_the_engine_refuses(#[case] extra: &str, #[case] want: &[&str]) {
    assert_finds(extra, &[], want);
}

#[test]
fn reports_a_conf_without_objects() {
    let conf = "PACKAGE_NAME=foo\nPACKAGE_VERSION=1.0\nAUTOINSTALL=yes\nBUILD_EXCLUSIVE_ARCH=x\n";
    let want = "Warning dkms.conf: no object is listed: make runs, but nothing is installed";
    assert_eq!(findings(conf, &[]), [want]);
}

#[rstest]
#[case::misspelt("BUILD_EXCLUSIVE_KERNEL_MX=7", &[
    "Error dkms.conf:7: BUILD_EXCLUSIVE_KERNEL_MX is not a directive",
])]
#[case::family("POST_UNINSTALL_ALL=x.sh", &["Warning dkms.conf:7: POST_UNINSTALL_ALL is not a directive"])]
#[case::variable_of_the_file("MAKES=2\nMAKE=\"make KVER=$kernelver -j${MAKES}\"", &[])]
#[case::other_name("SUPPORTED=yes\npost_install_all=x", &[])]
fn reports_unknown_directives(#[case] extra: &str, #[case] want: &[&str]) {
    assert_finds(extra, &[], want);
}

#[rstest]
#[case::scalar("PRE_BUILD[1]=x.sh", &["Warning dkms.conf:7: PRE_BUILD[1]=\"x.sh\" has no effect: it is not an array"])]
#[case::no_such_record("BUILD_EXCLUSIVE_ARCH[1]=arm", &[
    "Warning dkms.conf:7: BUILD_EXCLUSIVE_ARCH[1]=\"arm\" has no effect: there is no BUILT_MODULE_NAME[1]",
])]
#[case::make_without_match("MAKE[1]=\"make KVER=$kernelver\"", &[
    "Warning dkms.conf:7: MAKE[1]=\"make KVER=7.2.12-arch1-1\" has no effect: MAKE_MATCH[1] is not set",
])]
#[case::match_without_make("MAKE_MATCH[0]=^6", &["Warning dkms.conf:7: MAKE_MATCH[0]=\"^6\" has no effect: MAKE[0] is not set"])]
#[case::gap("PATCH[1]=a.patch", &["Warning dkms.conf:7: PATCH[1]=\"a.patch\" has no effect: dkms reads no element after a gap"])]
#[case::used("PATCH[0]=a.patch; PATCH_MATCH[0]=^6; STRIP[0]=no\nMAKE[0]=\"make KVER=$kernelver\"; MAKE_MATCH[0]=^7", &[])]
fn reports_elements_without_effect(#[case] extra: &str, #[case] want: &[&str]) {
    assert_finds(extra, &[("patches/a.patch", "")], want);
}

#[rstest]
#[case::clean("CLEAN='make clean'", &["Note dkms.conf:7: CLEAN is deprecated and has no effect"])]
#[case::obsolete_by("OBSOLETE_BY=6.9", &["Note dkms.conf:7: OBSOLETE_BY is deprecated"])]
#[case::harmless("CLEAN=/bin/true", &[])]
fn reports_deprecated_directives(#[case] extra: &str, #[case] want: &[&str]) {
    assert_finds(extra, &[], want);
}

#[rstest]
#[case::unset("unset AUTOINSTALL", 1)]
#[case::no("AUTOINSTALL=no", 0)]
#[case::empty("AUTOINSTALL=", 0)]
fn reports_that_autoinstall_is_unset(#[case] extra: &str, #[case] want: usize) {
    let found = findings(&format!("{CONF}{extra}\n"), &[]);
    let about = "Warning dkms.conf: AUTOINSTALL is not set";
    assert_eq!(found.iter().filter(|it| it.starts_with(about)).count(), want, "{found:?}");
    assert_eq!(found.len(), want, "{found:?}");
}

#[rstest]
#[case::dh_dkms("#MODULE_VERSION#", &["Error dkms.conf:2: PACKAGE_VERSION is a placeholder: \"#MODULE_VERSION#\""])]
#[case::autoconf("@VERSION@", &["Error dkms.conf:2: PACKAGE_VERSION is a placeholder: \"@VERSION@\""])]
#[case::dash("1.0-rc1", &["Warning dkms.conf:2: the version contains a dash: dkms's pacman hook adds foo-1.0/rc1"])]
#[case::plain("1.0.r3.g1a2b3c4", &[])]
#[case::git_hash("#12", &[])]
fn reports_versions_that_programs_read_differently(#[case] version: &str, #[case] want: &[&str]) {
    assert_eq!(findings(&CONF.replace("1.0", version), &[]), want);
}

#[rstest]
#[case::other_name("usr/src/amzn-1.0", &[
    "Warning dkms.conf:2: foo/1.0 is in the directory amzn-1.0: pacman hooks add amzn/1.0",
])]
#[case::no_version("pkg/usr/src/foo", &[
    "Warning dkms.conf:2: foo/1.0 is in the directory foo: pacman hooks ignore it",
])]
#[case::same("usr/src/foo-1.0", &[])]
#[case::checkout("home/me/foo-master", &[])]
fn compares_the_name_of_a_directory_in_a_source_tree(#[case] dir: &str, #[case] want: &[&str]) {
    let root = TestRoot::new();
    source(&root, dir, CONF, &[]);
    assert_eq!(findings_in(&root, dir), want);
}

#[rstest]
#[case::series("6.12", &["Note dkms.conf:7: BUILD_EXCLUSIVE_KERNEL_MAX is 6.12, which excludes 6.12.1 and all later 6.12.x"])]
#[case::release("6.12.999", &[])]
#[case::beyond("7", &[])]
fn reports_a_maximum_that_excludes_its_series(#[case] max: &str, #[case] want: &[&str]) {
    assert_finds(&format!("BUILD_EXCLUSIVE_KERNEL_MAX={max}"), &[], want);
}

const MAX_IS_MISSING: &str = "but dkms.conf does not set BUILD_EXCLUSIVE_KERNEL_MAX";

#[rstest]
#[case::meta(("META", "Name: zfs\nLinux-Maximum: 6.14\n"), Some("META:2: Linux-Maximum: 6.14"))]
#[case::check(("a.h", "#ifndef A\n#define A\n# if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)\n# error \"x\"\n#endif\n#endif"),
    Some("a.h:3: LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0) causes an #error"))]
#[case::reversed(("a.c", "#if (KERNEL_VERSION(6,9,0) < LINUX_VERSION_CODE)\n#error x\n#endif"),
    Some("a.c:1: (KERNEL_VERSION(6,9,0) < LINUX_VERSION_CODE) causes an #error"))]
#[case::minimum_that_is_set(("a.c", "#if LINUX_VERSION_CODE < KERNEL_VERSION(5,4,0)\n#error x\n#endif"), None)]
#[case::other_directory(("bpf/a.h", "#if LINUX_VERSION_CODE >= KERNEL_VERSION(6,9,0)\n#error x\n#endif"), None)]
#[case::not_an_error(("a.c", "#if LINUX_VERSION_CODE >= KERNEL_VERSION(6,9,0)\nint x;\n#error x\n#endif"), None)]
#[case::within_another_condition(("a.c", "#ifdef ARM\n#if LINUX_VERSION_CODE >= KERNEL_VERSION(6,9,0)\n#error x\n#endif\n#endif"), None)]
#[case::second_condition(("a.c", "#if LINUX_VERSION_CODE >= KERNEL_VERSION(6,9,0) && X\n#error x\n#endif"), None)]
fn reports_limits_that_only_the_source_states(
    #[case] file: (&str, &str),
    #[case] want: Option<&str>,
) {
    let want: Vec<_> =
        want.iter().map(|want| format!("Warning {want}, {MAX_IS_MISSING}")).collect();
    assert_eq!(findings(CONF, &[file]), want);
    let max = format!("{CONF}BUILD_EXCLUSIVE_KERNEL_MAX=6.8.999\n");
    assert_eq!(findings(&max, &[file]), [""; 0]);
}

#[test]
fn notes_that_no_kernel_is_excluded() {
    let conf = CONF.replace("BUILD_EXCLUSIVE_KERNEL_MIN=\"6.1\"\n", "");
    let note =
        "Note dkms.conf: no BUILD_EXCLUSIVE_* directive: dkms tries to build for every kernel";
    assert_eq!(findings(&conf, &[]), [note]);
}

#[rstest]
#[case::running("MAKE='make -C /lib/modules/7.2.12-arch1-1/build M=x'", &[
    "Error dkms.conf:7: MAKE[0] builds for one kernel only: /lib/modules/7.2.12-arch1-1/build",
])]
#[case::argument("MAKE=\"make KDIR=/usr/src/linux\"", &[
    "Error dkms.conf:7: MAKE[0] builds for one kernel only: KDIR=/usr/src/linux",
])]
#[case::target("MAKE=\"make -C /lib/modules/$kernelver/build M=$dkms_tree/foo/1.0/build\"", &[])]
#[case::headers("MAKE=\"make KDIR=$kernel_source_dir\"", &[])]
fn reports_a_make_for_one_kernel(#[case] extra: &str, #[case] want: &[&str]) {
    assert_finds(extra, &[], want);
}

const GUARDED: &str =
    "ifneq ($(KERNELRELEASE),)\nobj-m := foo.o\nelse\nall:\n\tmake -C $(K)\nendif\n";

#[rstest]
#[case::uname("MAKE=make", MAKEFILE, &[
    "Warning Makefile:2: uname names the running kernel, and MAKE does not override it",
])]
#[case::other_variable("MAKE=\"make KERNEL=$kernelver\"", MAKEFILE, &[
    "Warning Makefile:2: uname names the running kernel, and MAKE does not override it",
])]
#[case::overridden("MAKE=\"make KVER=$kernelver\"", MAKEFILE, &[])]
#[case::kbuild("MAKE=\"make -C $kernel_source_dir M=$dkms_tree/foo/1.0/build\"", MAKEFILE, &[])]
#[case::default("", MAKEFILE, &[])]
#[case::fixed("MAKE=make", "K = /usr/src/linux\nobj-m := foo.o\nall:\n\tmake -C $(K)\n", &[
    "Error Makefile:1: /usr/src/linux is one kernel only, and MAKE does not override it",
])]
#[case::guarded("MAKE=\"make K=$kernel_source_dir\"", GUARDED, &[
    "Error Makefile:1: nothing to make: dkms sets KERNELRELEASE, for which this Makefile defines no targets",
])]
#[case::guarded_and_quoted("MAKE=\"'make' K=$kernel_source_dir\"", GUARDED, &[])]
#[case::written_by_a_script("MAKE=make; PRE_BUILD=configure", MAKEFILE, &[])]
#[case::guarded_and_default("", GUARDED, &[])]
fn reports_a_makefile_that_does_not_get_the_target(
    #[case] extra: &str,
    #[case] makefile: &str,
    #[case] want: &[&str],
) {
    assert_finds(extra, &[("Makefile", makefile), ("configure", "#!/bin/sh\n")], want);
}

#[test]
fn follows_make_into_subdirectories() {
    let files = [("Makefile", "all:\n\t$(MAKE) -C sub\n"), ("sub/Makefile", MAKEFILE)];
    let location = "BUILT_MODULE_LOCATION=sub\n";
    let want =
        "Warning sub/Makefile:2: uname names the running kernel, and MAKE does not override it";
    assert_finds(&format!("{location}MAKE=make"), &files, &[want]);
    assert_finds(&format!("{location}MAKE=\"make KVER=$kernelver\""), &files, &[]);
}

#[rstest]
#[case::conf("v=$(uname -r)", &["Warning dkms.conf:7: uname names the running kernel, not the target"])]
#[case::default_value("kernelver=${kernelver:-$(uname -r)}", &[])]
#[case::comment("# v=$(uname -r)", &[])]
#[case::machine("v=$(uname -m)", &[])]
#[case::script("PRE_BUILD=asks.sh", &["Warning asks.sh:3: uname names the running kernel, and PRE_BUILD runs the script"])]
#[case::script_with_the_kernel("PRE_BUILD=\"asks.sh $kernelver\"", &[])]
#[case::script_with_the_variable("PRE_BUILD=knows.sh", &[])]
fn reports_calls_of_uname(#[case] extra: &str, #[case] want: &[&str]) {
    let asks = ("asks.sh", "#!/bin/sh\n# uname -r\nv=$(uname -r)\n");
    let knows = ("knows.sh", "#!/bin/sh\nv=${kernelver:-$(uname -r)}\n");
    assert_finds(extra, &[asks, knows], want);
}

#[rstest]
#[case::missing("obj-m += bar.o baz.o", &["Error dkms.conf:3: Makefile does not list foo.o, so make does not build foo.ko"])]
#[case::listed("obj-$(CONFIG_FOO) := bar.o \\\n foo.o", &[])]
#[case::computed("obj-m := bar.o $(MORE)", &[])]
#[case::included("obj-m := bar.o\ninclude more.mk", &[])]
#[case::renamed("obj-m := bar.o\nall:\n\tmv bar.ko foo.ko", &[])]
#[case::no_list("all:", &[])]
fn reports_an_object_that_is_not_listed(#[case] makefile: &str, #[case] want: &[&str]) {
    assert_finds("", &[("Makefile", makefile)], want);
}

#[test]
fn prefers_kbuild_to_the_makefile() {
    assert_finds(
        "",
        &[("Kbuild", "obj-m := bar.o\n")],
        &["Error dkms.conf:3: Kbuild does not list foo.o, so make does not build foo.ko"],
    );
    assert_finds("PRE_BUILD=a.sh", &[("Kbuild", "obj-m := bar.o\n"), ("a.sh", "#!/bin/sh\n")], &[]);
}

#[rstest]
#[case::missing("POST_INSTALL=\"b.sh x\"", &["Error dkms.conf:7: POST_INSTALL names b.sh, which does not exist"])]
#[case::not_executable("POST_ADD=plain.sh", &["Error plain.sh: not executable, so dkms skips POST_ADD"])]
#[case::present("POST_REMOVE=\"a.sh $kernelver\"", &[])]
#[case::written_by_another("PRE_BUILD=a.sh; POST_BUILD=b.sh", &[])]
#[case::patch("PATCH=b.patch", &["Error dkms.conf:7: PATCH[0] names patches/b.patch, which does not exist"])]
#[case::patch_present("PATCH=a.patch", &[])]
fn reports_files_that_dkms_cannot_use(#[case] extra: &str, #[case] want: &[&str]) {
    let files = [("a.sh", "#!/bin/sh\n"), ("plain.sh", "true\n"), ("patches/a.patch", "")];
    assert_finds(extra, &files, want);
}

#[test]
fn ignores_overrides_and_changes_nothing() {
    let root = TestRoot::new();
    source(&root, "srv/foo", CONF, &[]);
    root.write("etc/dkms/foo.conf", "CLEAN='make clean'\nPOST_ADD=none\n");
    let before = root.listing(".");
    assert_eq!(findings_in(&root, "srv/foo"), [""; 0]);
    assert_eq!(root.listing("."), before);
}

#[test]
fn refuses_a_directory_without_a_conf() {
    let root = TestRoot::new();
    let kernel = "7.2.12-arch1-1".parse().unwrap();
    let result = lint(&Machine::for_hook(root.path()), &root.at("usr"), &kernel);
    assert_eq!(result.map_err(|why| why.code), Err(9));
}
