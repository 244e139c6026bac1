//! Tests of modules whose builds for several kernels disturb each other if they run side by side.

use std::fs;

use rstest::rstest;

use crate::fixture::{BUILT, Fixture, K1, K2, assert_clean};
use crate::parallel_builds::build_script;

/// Adds two kernels, and the module foo/1.0 whose PRE_BUILD script is `script`. Two builds run in
/// parallel.
///
/// In the script, `$src` is the module's source, `$build` its build directory, and `meet` waits
/// until the script also runs for the other kernel. Once the two scripts have met, `meet` returns
/// at once.
fn meeting_builds(fixture: &mut Fixture, script: &str) {
    fixture.root.kernel(K1).pkgbase("linux").headers();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    fixture.root.source("foo", "1.0").conf_line("PRE_BUILD=while-building.sh");
    fixture.jobs = Some(2);
    let meet = format!(
        "src=$ROOT/usr/src/foo-1.0; build=$ROOT/var/lib/dkms/foo/1.0/build
         echo $kernelver >> $ROOT/tries
         meet() {{
             touch $ROOT/$kernelver
             for i in {{1..40}}; do [[ -e $ROOT/{K1} && -e $ROOT/{K2} ]] && return; sleep 0.05; done
         }}"
    );
    build_script(fixture, "foo", &format!("{meet}\n{script}"));
}

/// Returns the number of times that the script of [`meeting_builds`] has run.
fn tries(fixture: &Fixture) -> usize {
    fixture.root.read("tries").lines().count()
}

/// Returns true if builds can run side by side on this machine.
fn has_own_mounts(fixture: &Fixture) -> bool {
    let machine = fixture.machine();
    machine.tools.confinement.has_own_mounts(&machine.tools)
}

/// Returns the `version` of the installed object of foo/1.0 for `release`.
#[track_caller]
fn installed_version(fixture: &Fixture, release: &str) -> String {
    let file = format!("usr/lib/modules/{release}/updates/dkms/foo.ko");
    let object = fs::read(fixture.root.at(file)).unwrap();
    let text = String::from_utf8_lossy(&object).into_owned();
    let version = text.split('\0').find_map(|field| field.strip_prefix("version="));
    version.unwrap().to_owned()
}

/// Asserts that the installed objects of foo/1.0 have the kernel releases as their versions.
#[track_caller]
fn assert_own_objects(fixture: &Fixture) {
    for release in [K1, K2] {
        assert_eq!(installed_version(fixture, release), release);
    }
}

/// The line that puts the kernel release into the object.
const CODE: &str = "MODULE_VERSION(\\\"$kernelver\\\");";

#[rstest]
#[case::a_source_file_in_place("echo \"CODE\" > foo.c; meet")]
#[case::by_the_path_of_the_build_directory("echo \"CODE\" > $build/x; meet; cp $build/x foo.c")]
#[case::by_a_relative_path("echo \"CODE\" > ../build/x; meet; mv -f ../build/x foo.c")]
#[case::a_directory_made_once(
    "mkdir out || exit 1; meet; echo \"CODE\" > out/x; cp ../build/*/x foo.c"
)]
#[case::a_file_that_is_appended("echo \"/* */ CODE\" >> x; meet; sed 's,.*/ ,,' x > foo.c")]
fn builds_of_a_module_cannot_exchange_files(
    #[case] script: &str,
    #[values(false, true)] without_privileges: bool,
) {
    let mut fixture = Fixture { without_privileges, ..Fixture::without_kernels() };
    meeting_builds(&mut fixture, &script.replace("CODE", CODE));
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_own_objects(&fixture);
    assert_eq!(tries(&fixture), 2, "a build was repeated");
}

#[rstest]
#[case::keeps_a_file("echo \"CODE\" > $src/gen.h; meet; sleep 0.2; cp $src/gen.h foo.c")]
#[case::replaces_a_file(
    "echo \"CODE\" > $src/new; mv $src/new $src/gen.h; meet; sleep 0.2; cp $src/gen.h foo.c"
)]
#[case::removes_its_files(
    "mkdir -p $src/out; echo \"CODE\" > $src/out/x; meet; sleep 0.2; cp $src/out/x foo.c; \
     meet; sleep 0.3; rm -rf $src/out"
)]
#[case::changes_a_mode(
    "[[ $kernelver == *12* ]] && m=600 || m=644; chmod $m $src/foo.c; meet; sleep 0.2; \
     [[ $(stat -c %a $src/foo.c) == $m ]] && echo \"CODE\" > foo.c"
)]
fn module_that_writes_into_its_source_is_built_for_one_kernel_at_a_time(#[case] script: &str) {
    let mut fixture = Fixture::without_kernels();
    meeting_builds(&mut fixture, &script.replace("CODE", CODE));
    let conf = fixture.root.read("usr/src/foo-1.0/dkms.conf");
    fixture.root.write("usr/src/foo-1.0/dkms.conf", conf + "POST_INSTALL=placed.sh\n");
    let note = format!("#!/bin/sh\necho $kernelver >> {}/placed\n", fixture.root.path().display());
    fixture.root.executable("usr/src/foo-1.0/placed.sh", &note);
    let report = fixture.sync(&["foo-1.0"], &[]);
    assert_clean(&report);
    assert_own_objects(&fixture);
    // Only the repeated builds are installed.
    let placed = fixture.root.read("placed");
    let mut placed: Vec<_> = placed.lines().collect();
    placed.sort_unstable();
    assert_eq!(placed, [K1, K2]);
    let side_by_side = has_own_mounts(&fixture);
    assert_eq!(tries(&fixture), if side_by_side { 4 } else { 2 });
    assert!(fixture.root.read(format!("{BUILT}/alpm-dkms.toml")).contains("changes_source = true"));

    // The next run knows from the start that the builds change the source.
    fixture.root.write("usr/src/foo-1.0/another.h", "/* new */\n");
    let before = tries(&fixture);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert_own_objects(&fixture);
    assert_eq!(tries(&fixture) - before, 2, "a build was repeated");
}

#[rstest]
#[case::variable_in_make("MAKE=\"true $source_tree/foo-1.0; MODULES\"")]
#[case::quoted_variable_in_make("MAKE='true ${source_tree}; MODULES'")]
#[case::path_in_pre_build("PRE_BUILD=\"while-building.sh /usr/src/foo-1.0/gen.h\"")]
#[case::variable_in_post_build("POST_BUILD=\"while-building.sh $source_tree/out\"")]
fn module_that_names_the_source_tree_is_built_for_one_kernel_at_a_time(#[case] line: &str) {
    let mut fixture = Fixture::without_kernels();
    let script = "mkdir $ROOT/lock || touch $ROOT/met; sleep 0.5; rmdir $ROOT/lock";
    meeting_builds(&mut fixture, script);
    let modules = format!(
        "make -C {}/usr/lib/modules/$kernelver/build M=$dkms_tree/foo/1.0/build",
        fixture.root.path().display()
    );
    let conf = fixture.root.read("usr/src/foo-1.0/dkms.conf");
    let conf = format!("{conf}{}\n", line.replace("MODULES", &modules));
    fixture.root.write("usr/src/foo-1.0/dkms.conf", conf);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K2, "foo.ko"));
    assert!(!fixture.root.exists("met"), "the builds ran side by side");
}

#[rstest]
#[case::directory_in_a_fixed_place(
    "rm -rf $ROOT/w; mkdir -p $ROOT/w; echo $kernelver > $ROOT/w/k; meet; sleep 0.2; \
     [[ $(< $ROOT/w/k) == $kernelver ]] || exit 4"
)]
#[case::lock_that_is_not_waited_for(
    "mkdir $ROOT/lock || exit 3; meet; sleep 0.2; rmdir $ROOT/lock"
)]
#[case::program_that_the_other_build_removes(
    "cp /bin/true $ROOT/tool; meet; sleep 0.2; $ROOT/tool || exit 127; rm $ROOT/tool; sleep 0.2"
)]
fn failure_beside_another_build_is_retried_alone(#[case] script: &str) {
    let mut fixture = Fixture::without_kernels();
    meeting_builds(&mut fixture, script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K2, "foo.ko"));
    assert_eq!(fixture.output.lines, [""; 0]);
    let tree = fixture.tree();
    assert!(!["/.failed", "/.log", "/.build"].iter().any(|dir| tree.contains(dir)), "{tree}");
}

#[rstest]
#[case::script("meet; exit 9", true)]
#[case::compiler("meet; echo '#error no' > foo.c", true)]
#[case::other_failure_each_time("meet; mktemp XXXX > foo.c; sed -i '1s/^/#error /' foo.c", false)]
fn failures_of_a_module_are_retried_until_one_recurs(#[case] script: &str, #[case] recurs: bool) {
    let mut fixture = Fixture::without_kernels();
    meeting_builds(&mut fixture, script);
    let report = fixture.sync(&["foo-1.0"], &[]);
    let mut failed: Vec<_> = report.failures().map(|(action, _)| action.to_string()).collect();
    failed.sort_unstable();
    assert_eq!(failed, [K1, K2].map(|kernel| format!("build foo/1.0 for {kernel}")));
    let before = tries(&fixture);
    let retries = match (has_own_mounts(&fixture), recurs) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => 2,
    };
    assert_eq!(before, 2 + retries);
    for kernel in [K1, K2] {
        let record = format!("var/lib/dkms/.failed/foo-1.0-{kernel}-x86_64.toml");
        assert!(fixture.root.exists(&record), "{record} is missing");
    }
    assert!(!fixture.root.exists("var/lib/dkms/.build"));
    // Both failures are remembered.
    fixture.sync(&[], &[K1, K2]);
    assert_eq!(tries(&fixture), before);
}

#[test]
#[ignore = "needs root: run make unit"]
fn killed_run_does_not_install_a_build_that_ran_beside_another() {
    let mut fixture = Fixture::without_kernels();
    assert!(has_own_mounts(&fixture), "builds have no mounts of their own");
    // The build for K2 ends after the build for K1, and copies the record that K1 has at that time.
    let record = format!("$ROOT/{BUILT}/alpm-dkms.toml");
    let script = format!(
        "meet; [[ $kernelver == {K2} ]] || exit 0
         for i in {{1..100}}; do [[ -e {record} ]] && break; sleep 0.05; done
         cp {record} $ROOT/early"
    );
    meeting_builds(&mut fixture, &script);
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    let source =
        |text: &str| text.lines().find(|line| line.starts_with("source =")).map(String::from);
    let (early, last) =
        (fixture.root.read("early"), fixture.root.read(format!("{BUILT}/alpm-dkms.toml")));
    assert_ne!(source(&early), source(&last));

    fixture.root.remove(format!("usr/lib/modules/{K1}/updates"));
    fixture.root.write(format!("{BUILT}/alpm-dkms.toml"), early);
    let before = tries(&fixture);
    fixture.root.remove("var/lib/dkms/.cache");
    assert_clean(&fixture.sync(&[], &[K1]));
    assert_eq!(tries(&fixture) - before, 1, "the build was not repeated");
}
