//! Tests of parallel builds: their number, their order and their build directories.

use std::fs;

use dkms_engine::plan::Verb;
use rstest::rstest;

use crate::fixture::{Fixture, K1, K2, assert_clean};

/// Adds the script `while-building.sh` to the source of a module. In the script, `$ROOT` is the
/// test root.
pub fn build_script(fixture: &Fixture, module: &str, script: &str) {
    let path = format!("usr/src/{module}-1.0/while-building.sh");
    let text = format!("#!/bin/bash\nROOT={}\n{script}\n", fixture.root.path().display());
    fixture.root.executable(path, &text);
}

#[test]
fn modules_are_built_in_parallel() {
    let mut fixture = Fixture::new();
    for module in ["foo", "bar"] {
        fixture.root.source(module, "1.0").conf_line("PRE_BUILD=while-building.sh");
        // Each script waits until the other one has started, and fails if the builds are
        // sequential.
        build_script(
            &fixture,
            module,
            "touch $ROOT/$module; for i in {1..200}; do [[ -e $ROOT/foo && -e $ROOT/bar ]] && exit; \
             sleep 0.05; done; exit 1",
        );
    }
    fixture.jobs = Some(2);
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K1, "bar.ko"));
}

#[test]
fn slow_installation_does_not_delay_other_builds() {
    let mut fixture = Fixture::new();
    for module in ["a", "b", "c"] {
        fixture.root.source(module, "1.0").conf_line("PRE_BUILD=while-building.sh");
        build_script(&fixture, module, "touch $ROOT/$module");
    }
    // a is built first. Its POST_INSTALL script waits until both other builds have started.
    let conf = fixture.root.read("usr/src/a-1.0/dkms.conf") + "POST_INSTALL=slow.sh\n";
    fixture.root.write("usr/src/a-1.0/dkms.conf", conf);
    let script = format!(
        "#!/bin/bash\ncd {}\nfor i in {{1..200}}; do [[ -e b && -e c ]] && {{ touch both; exit; }}; \
         sleep 0.05; done\n",
        fixture.root.path().display()
    );
    fixture.root.executable("usr/src/a-1.0/slow.sh", &script);
    fixture.jobs = Some(1);
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(fixture.root.exists("both"), "b and c were not built during the installation of a");
    assert!(["a.ko", "b.ko", "c.ko"].iter().all(|object| fixture.installed(K1, object)));
}

#[rstest]
#[case::in_separate_directories(false)]
#[case::without_privileges(true)]
fn compilers_never_exceed_the_maximum_number_of_jobs(#[case] without_privileges: bool) {
    let mut fixture = Fixture { jobs: Some(3), without_privileges, ..Fixture::without_kernels() };
    let modules = [
        ("a", "make -f many.mk"),
        ("b", "\'make\' -j9 -f many.mk"),
        ("c", "make --jobs=$(nproc) -j -f many.mk"),
        ("d", "MAKEFLAGS=-j9 make -f many.mk"),
        ("e", "make -f many.mk SUB=make"),
    ];
    for release in [K1, K2] {
        fixture.root.kernel(release).pkgbase("linux").headers();
    }
    for (module, command) in modules {
        fixture.root.source(module, "1.0").conf_line(&format!("MAKE=$'{command}'")).file(
            "many.mk",
            &format!(
                "SUB := +$(MAKE)\nall: 1 2 3 4\n\t$(SUB) -j9 -f many.mk more\n\
                 \t$(MAKE) -C {}/usr/lib/modules/$(kernelver)/build M=$(CURDIR)\n\
                 more: 5 6 7 8\n1 2 3 4 5 6 7 8:\n\t./while-building.sh $@\n",
                fixture.root.path().display()
            ),
        );
        // A fake compiler that records how many fake compilers are running, including itself.
        build_script(
            &fixture,
            module,
            "cd $ROOT; mkdir -p jobs; me=$(mktemp jobs/XXXXXX); ls jobs | wc -l >> counts; \
             sleep 0.1; rm $me",
        );
    }
    assert_clean(&fixture.sync(&[], &[K1, K2]));
    let counts = fixture.root.read("counts");
    let counts: Vec<usize> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.len(), modules.len() * 2 * 8, "not every compiler ran");
    let most = counts.iter().max().unwrap();
    assert!((2..=3).contains(most), "{counts:?}");
}

#[test]
fn build_waits_until_its_dependency_is_installed() {
    let mut fixture = Fixture::new();
    fixture.root.source("spl", "1.0");
    fixture
        .root
        .source("zfs", "1.0")
        .conf_line("BUILD_DEPENDS=spl")
        .conf_line("PRE_BUILD=while-building.sh");
    let placed = format!("usr/lib/modules/{K1}/updates/dkms/spl.ko");
    build_script(&fixture, "zfs", &format!("test -e $ROOT/{placed}"));
    fixture.jobs = Some(2);
    assert_clean(&fixture.sync(&[], &[K1]));
    assert!(fixture.installed(K1, "zfs.ko"));
}

#[test]
fn dependents_of_a_failed_build_are_skipped() {
    let mut fixture = Fixture::new();
    fixture.root.source("spl", "1.0").broken();
    fixture.root.source("zfs", "1.0").conf_line("BUILD_DEPENDS=spl");
    fixture.root.source("top", "1.0").conf_line("BUILD_DEPENDS=zfs");
    fixture.root.source("foo", "1.0");
    let report = fixture.sync(&[], &[K1]);
    let failed: Vec<_> = report.failures().map(|(action, _)| action.to_string()).collect();
    assert_eq!(failed, [format!("build spl/1.0 for {K1}")]);
    assert!(fixture.installed(K1, "foo.ko"));
    assert!(!fixture.installed(K1, "zfs.ko") && !fixture.installed(K1, "top.ko"));
}

#[test]
fn dependents_of_a_failed_installation_are_skipped() {
    let mut fixture = Fixture::new();
    let refusing = "PRE_INSTALL=while-building.sh";
    fixture.root.source("spl", "1.0").conf_line(refusing);
    build_script(&fixture, "spl", "exit 5");
    fixture.command(Verb::Build, "spl/1.0");
    // spl is already built, so it is installed before all builds.
    fixture.root.source("zfs", "1.0").conf_line("BUILD_DEPENDS=spl");
    let report = fixture.sync(&[], &[K1]);
    let failed: Vec<_> = report.failures().map(|(action, _)| action.to_string()).collect();
    assert_eq!(failed, [format!("install spl/1.0 for {K1}")]);
    assert!(!fixture.installed(K1, "zfs.ko"));
}

/// Adds two kernels, and a module whose builds check that they share no build directory and then
/// run `then`.
///
/// Each build writes to the build directory, at the path that confs use. If builds can run in
/// parallel, each one waits until the other one has started.
fn two_kernels(fixture: &mut Fixture, then: &str) {
    fixture.root.kernel(K1).pkgbase("linux").headers();
    fixture.root.kernel(K2).pkgbase("linux").headers();
    fixture.root.source("foo", "1.0").conf_line("PRE_BUILD=while-building.sh");
    fixture.jobs = Some(2);
    let real = fixture.machine();
    let wait = if real.tools.confinement.has_own_mounts(&real.tools) {
        format!(
            "for i in {{1..200}}; do [[ -e $ROOT/{K1} && -e $ROOT/{K2} ]] && break; sleep 0.05; done
             [[ -e $ROOT/{K1} && -e $ROOT/{K2} ]] || exit 1"
        )
    } else {
        "! compgen -G \"$ROOT/var/lib/dkms/.build/foo-*\" || exit 1".to_owned()
    };
    let script = format!(
        "build=$ROOT/var/lib/dkms/foo/1.0/build; [[ $PWD == \"$build\" ]] || exit 2
         echo $kernelver > $build/mine; touch $ROOT/$kernelver; {wait}
         [[ $(< $build/mine) == \"$kernelver\" ]] || exit 3; {then}"
    );
    build_script(fixture, "foo", &script);
}

#[rstest]
#[case::in_separate_directories(false)]
#[case::sequentially(true)]
fn module_is_built_for_several_kernels(#[case] without_privileges: bool) {
    let mut fixture = Fixture { without_privileges, ..Fixture::without_kernels() };
    two_kernels(&mut fixture, "");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K1, "foo.ko") && fixture.installed(K2, "foo.ko"));
    assert!(!fixture.tree().contains("build/"), "{}", fixture.tree());
}

#[test]
fn directory_of_a_failed_build_is_kept_until_a_build_succeeds() {
    let mut fixture = Fixture::without_kernels();
    two_kernels(&mut fixture, &format!("[[ $kernelver != {K2} ]]"));
    let report = fixture.sync(&["foo-1.0"], &[]);
    let failed: Vec<_> = report.failures().map(|(action, _)| action.to_string()).collect();
    assert_eq!(failed, [format!("build foo/1.0 for {K2}")]);
    assert!(fixture.installed(K1, "foo.ko"));
    let left = "var/lib/dkms/foo/1.0/build";
    assert_eq!(fixture.root.read(format!("{left}/mine")), format!("{K2}\n"));
    let log = fs::read_link(fixture.root.at(left).join("make.log")).unwrap();
    let log = fixture.root.read(log.strip_prefix("/").unwrap());
    assert!(log.contains(&format!("foo/1.0 for kernel {K2}")), "{log}");
    assert!(!fixture.root.exists("var/lib/dkms/.build"));

    fixture.root.source("foo", "1.0");
    assert_clean(&fixture.sync(&["foo-1.0"], &[]));
    assert!(fixture.installed(K2, "foo.ko"));
    assert!(!fixture.tree().contains("build/"), "{}", fixture.tree());
}

/// A dkms command in a script of a module is a run within a run.
#[rstest]
#[case::build_directory("var/lib/dkms/.build/other-1.0-x/file")]
#[case::compilers("var/lib/dkms/.bin/once/gcc")]
fn run_within_a_run_leaves_the_files_of_the_outer_one(#[case] file: &str) {
    let mut fixture = Fixture::new();
    fixture.root.source("foo", "1.0");
    fixture.root.write(file, "");
    let mut machine = fixture.machine();
    machine.env = machine.env.clone().with("ALPM_DKMS_WITHIN_RUN", "1");
    assert_clean(&fixture.sync_on(&machine, &["foo-1.0"]));
    assert!(fixture.installed(K1, "foo.ko") && fixture.root.exists(file));
    // A run that is not nested removes the files that a killed run left behind.
    fixture.root.source("bar", "1.0");
    assert_clean(&fixture.sync(&["bar-1.0"], &[]));
    assert!(!fixture.root.exists(file));
}
