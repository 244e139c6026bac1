//! The engine on small roots: fake kernels whose headers "compile" in milliseconds, real make,
//! real files, real scripts.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its root has failed")]

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::act;
use dkms_engine::cache::Cache;
use dkms_engine::debts::{Debt, Debts};
use dkms_engine::memory::Memory;
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::plan::{self, Plan, Request, Verb};
use dkms_engine::report::{Event, Report, Watch};
use dkms_engine::run::{Bond, Confinement};
use dkms_engine::site::Site;
use dkms_engine::survey::{self, Scope};
use rstest::rstest;
use testroot::TestRoot;

const K1: &str = "7.2.12-arch1-1";
const K2: &str = "7.2.13-arch1-1";

/// What was said while a plan was carried out.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    phases: Vec<String>,
}

impl Watch for Heard {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Says(line) => self.lines.push((*line).to_owned()),
            Event::Phase { step, phase, .. } => {
                self.phases.push(format!("{}: {phase}", step.action));
            }
            _ => {}
        }
    }
}

/// A root with the programs that tests count.
struct Machine {
    root: TestRoot,
    heard: Heard,
    /// How many jobs may run, if not one for each processor.
    jobs: Option<usize>,
    /// Whether programs cannot be confined, as for a user who is not root.
    without_privileges: bool,
}

impl Machine {
    fn new() -> Self {
        Self {
            root: TestRoot::new(),
            heard: Heard::default(),
            jobs: None,
            without_privileges: false,
        }
    }

    fn with_kernel(release: &str) -> Self {
        let machine = Self::new();
        machine.root.kernel(release).pkgbase("linux").headers();
        machine
    }

    fn site(&self) -> Site {
        let mut site = Site::for_hook(self.root.path());
        site.tools.depmod = self.root.depmod();
        self.root.make();
        site.env = site.env.first_in_path(&self.root.programs());
        if self.without_privileges {
            site.tools.confinement = Confinement::known(Bond::None);
        }
        if let Some(jobs) = self.jobs {
            site.settings.set_jobs(jobs);
        }
        // Not this machine's: a test is not to depend on it.
        site.memory = Memory::at(&self.root.at("proc"), &self.root.at("cgroup"));
        site
    }

    fn plan(&self, request: &Request) -> Plan {
        let facts = survey::read(&self.site(), &Scope::default());
        plan::make(request, &facts).unwrap()
    }

    fn run(&mut self, request: &Request) -> Report {
        let site = self.site();
        let facts = survey::read(&site, &Scope::default());
        let plan = plan::make(request, &facts).unwrap();
        act::carry_out(&plan, &facts, &site, &mut self.heard)
    }

    /// What a hook does after a transaction with these targets.
    fn sync(&mut self, sources: &[&str], kernels: &[&str]) -> Report {
        self.run(&sync(sources, kernels))
    }

    fn command(&mut self, verb: Verb, module: &str, release: &str) -> Report {
        let kernels = Some(vec![kernel(release)]);
        self.run(&Request::Command { verb, module: id(module), kernels, force: false })
    }

    /// Everything but the caches and the logs of failures.
    fn tree(&self) -> String {
        let hidden = |line: &&str| ![".cache/", ".bin/"].iter().any(|dir| line.contains(dir));
        let listing = self.root.listing("var/lib/dkms");
        listing.lines().filter(hidden).collect::<Vec<_>>().join("\n")
    }

    fn installed(&self, release: &str, object: &str) -> bool {
        self.root.exists(format!("usr/lib/modules/{release}/updates/dkms/{object}"))
    }

    fn builds(&self) -> usize {
        self.root.calls("make").iter().filter(|call| call.contains("KERNELRELEASE=")).count()
    }
}

fn sync(sources: &[&str], kernels: &[&str]) -> Request {
    Request::Sync {
        sources: sources.iter().map(|dir| (*dir).to_owned()).collect(),
        kernels: kernels.iter().map(|release| kernel(release)).collect(),
    }
}

fn kernel(release: &str) -> KernelRelease {
    release.parse().unwrap()
}

fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

fn clean(report: &Report) {
    let failures: Vec<_> = report.failures().collect();
    assert!(report.is_clean(), "{failures:#?} {:?}", report.trouble);
}

#[test]
fn a_module_is_built_placed_and_indexed() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    assert_eq!(machine.root.calls("depmod").len(), 1);
    insta::assert_snapshot!(machine.tree());
}

#[test]
fn a_build_tells_its_phases() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0").conf_line("PRE_BUILD=\"pre.sh\"");
    let script = machine.root.at("usr/src/foo-1.0/pre.sh");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    executable(&script);
    clean(&machine.sync(&["foo-1.0"], &[]));
    let phases =
        ["copying", "running PRE_BUILD", "compiling", "checking", "stripping and compressing"];
    assert_eq!(
        machine.heard.phases,
        phases.map(|phase| format!("build foo/1.0 for {K1}: {phase}"))
    );
}

#[test]
fn the_second_run_does_nothing() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let plan = machine.plan(&sync(&["foo-1.0"], &[K1]));
    assert_eq!(plan.steps, []);
}

#[test]
fn a_removed_module_leaves_nothing() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0").conf_line("POST_REMOVE=\"bye.sh now\"");
    let script = machine.root.at("usr/src/foo-1.0/bye.sh");
    fs::write(
        &script,
        format!("#!/bin/sh\necho \"$1 $kernelver\" > {}/bye\n", machine.root.path().display()),
    )
    .unwrap();
    executable(&script);
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert_eq!(machine.root.read("bye"), format!("now {K1}\n"));
    assert!(!machine.root.exists(format!("usr/lib/modules/{K1}/updates")));
    assert_eq!(
        machine.tree(),
        "var/lib/dkms/.bin/\nvar/lib/dkms/.cache/".lines().filter(|_| false).collect::<String>()
    );
}

#[test]
fn a_new_version_that_fails_leaves_the_old_one_until_both_go() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let before = fs::read(machine.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    machine.root.remove("usr/src/foo-1.0");
    machine.root.source("foo", "2.0").broken();
    let report = machine.sync(&["foo-1.0", "foo-2.0"], &[]);
    let failed = report.failures().next().unwrap().1;
    assert!(failed.cause.as_ref().unwrap().contains("error"), "{failed:?}");
    assert_eq!(failed.code, 10);
    let after = fs::read(machine.root.at(format!("usr/lib/modules/{K1}/updates/dkms/foo.ko")));
    assert_eq!(before.unwrap(), after.unwrap());

    let builds = machine.builds();
    clean(&machine.sync(&["foo-2.0"], &[K1]));
    assert_eq!(machine.builds(), builds, "a known failure is not tried again");

    machine.root.remove("usr/src/foo-2.0");
    clean(&machine.sync(&["foo-2.0"], &[]));
    assert!(!machine.installed(K1, "foo.ko"));
    assert!(!machine.root.exists("var/lib/dkms/foo"), "{}", machine.tree());
    assert!(!machine.root.exists("var/lib/dkms/.debts"), "{}", machine.tree());
}

#[test]
fn a_new_version_takes_the_place_of_the_old_one() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0").objects(&["foo", "extra"]);
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "extra.ko"));
    machine.root.remove("usr/src/foo-1.0");
    machine.root.source("foo", "2.0");
    clean(&machine.sync(&["foo-1.0", "foo-2.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(!machine.installed(K1, "extra.ko"), "only the old version had it");
    assert!(!machine.root.exists("var/lib/dkms/foo/1.0"), "{}", machine.tree());
}

#[test]
fn a_kernel_bump_leaves_nothing_of_the_old_directory() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    for file in ["kernel", "build", "modules.order", "modules.builtin", "pkgbase", "vmlinuz"] {
        machine.root.remove(format!("usr/lib/modules/{K1}/{file}"));
    }
    machine.root.kernel(K2).pkgbase("linux").headers();
    clean(&machine.sync(&[], &[K1, K2]));
    assert!(machine.installed(K2, "foo.ko"));
    assert!(
        !machine.root.exists(format!("usr/lib/modules/{K1}")),
        "{}",
        machine.root.listing("usr/lib/modules")
    );
    assert!(!machine.tree().contains(K1), "{}", machine.tree());
}

#[test]
fn an_object_for_another_kernel_is_refused() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.kernel(K2).pkgbase("linux").headers();
    let other = machine.root.at(format!("usr/lib/modules/{K2}/build"));
    machine
        .root
        .source("foo", "1.0")
        .conf_line(&format!("MAKE=\"make -C {} M=$dkms_tree/foo/1.0/build\"", other.display()));
    let report = machine.sync(&["foo-1.0"], &[]);
    let (action, failed) = report.failures().next().unwrap();
    assert_eq!(action.kernel().unwrap().as_str(), K1);
    assert!(failed.message.contains(K2) && failed.message.contains(K1), "{}", failed.message);
    assert!(!machine.installed(K1, "foo.ko") && machine.installed(K2, "foo.ko"));
}

#[test]
fn a_makefile_that_asks_uname_gets_the_kernel_it_builds_for() {
    let mut machine = Machine::with_kernel(K1);
    let root = machine.root.path().display().to_string();
    machine.root.source("foo", "1.0").conf_line(&format!(
        "MAKE='make -C {root}/usr/lib/modules/$(uname -r)/build M=$dkms_tree/foo/1.0/build'"
    ));
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
}

#[test]
fn broken_confs_fail_their_own_modules_only() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("good", "1.0");
    machine.root.source("empty", "1.0").conf("");
    machine.root.source("exits", "1.0").conf("exit 3\n");
    machine.root.source("out", "1.0").conf_line("DEST_MODULE_LOCATION=/../../etc");
    let report = machine.sync(&["good-1.0", "empty-1.0", "exits-1.0", "out-1.0"], &[]);
    let failed: BTreeSet<_> =
        report.failures().map(|(action, _)| action.module().unwrap().to_string()).collect();
    assert_eq!(failed, ["empty/1.0", "exits/1.0", "out/1.0"].map(String::from).into());
    assert!(machine.installed(K1, "good.ko"));
    assert!(!machine.root.exists("etc/out.ko"));
}

#[test]
fn what_was_interrupted_is_finished() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    // As a kill between two renames leaves it: a stray file, an object missing, the debt.
    let placed = format!("usr/lib/modules/{K1}/updates/dkms");
    machine.root.remove(format!("{placed}/foo.ko"));
    machine.root.write(format!("{placed}/.tmp-foo.ko.new"), "half");
    let debt = Debt::Install { module: id("foo/1.0"), kernel: kernel(K1) };
    Debts::of(&machine.site().trees).write(&debt).unwrap();
    clean(&machine.sync(&[], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(!machine.root.exists(format!("{placed}/.tmp-foo.ko.new")));
    assert!(!machine.root.exists("var/lib/dkms/.debts"));
}

#[test]
fn commands_do_what_dkmss_do() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.command(Verb::Build, "foo/1.0", K1));
    assert!(!machine.installed(K1, "foo.ko"));
    clean(&machine.command(Verb::Install, "foo/1.0", K1));
    assert!(machine.installed(K1, "foo.ko"));
    assert_eq!(machine.builds(), 1);
    clean(&machine.command(Verb::Uninstall, "foo/1.0", K1));
    assert!(!machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists(format!("var/lib/dkms/foo/1.0/{K1}")));
    clean(&machine.command(Verb::Remove, "foo/1.0", K1));
    assert!(!machine.root.exists("var/lib/dkms/foo"), "{}", machine.tree());
    assert!(machine.root.exists("usr/src/foo-1.0"), "the source is not ours to remove");
}

#[test]
fn a_foreign_file_at_our_place_is_not_deleted() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let placed = format!("usr/lib/modules/{K1}/updates/dkms/foo.ko");
    machine.root.write(&placed, "somebody else's");
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert_eq!(machine.root.read(&placed), "somebody else's");
    assert!(
        machine.heard.lines.iter().any(|line| line.contains("foo.ko")),
        "{:?}",
        machine.heard.lines
    );
}

#[test]
fn our_departure_takes_along_what_goes_with_us() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let sources = ["foo-1.0".to_owned()].into();
    clean(&machine.run(&Request::Depart { sources, kernels: BTreeSet::new(), swap: false }));
    assert_eq!(machine.root.listing("var/lib/dkms"), "");
    assert!(!machine.root.exists(format!("usr/lib/modules/{K1}/updates")));
}

#[test]
fn another_dkms_finds_every_module_as_it_is() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let request =
        Request::Depart { sources: BTreeSet::new(), kernels: BTreeSet::new(), swap: true };
    clean(&machine.run(&request));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists("var/lib/dkms/foo/1.0/source"));
    let ours = machine.tree().lines().filter(|line| line.contains("/.")).count();
    assert_eq!(ours, 0, "{}", machine.tree());
}

#[test]
fn patches_are_applied() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0").conf_line("PATCH[0]=mend.patch").broken();
    let broken = machine.root.read("usr/src/foo-1.0/foo.c");
    let mut patch = format!("--- a/foo.c\n+++ b/foo.c\n@@ -1,{} +1 @@\n", broken.lines().count());
    broken.lines().for_each(|line| patch.push_str(&format!("-{line}\n")));
    patch.push_str("+int mended;\n");
    machine.root.write("usr/src/foo-1.0/patches/mend.patch", patch);
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko"));
    machine.root.source("bar", "1.0").conf_line("PATCH[0]=absent.patch");
    let report = machine.sync(&["bar-1.0"], &[]);
    assert_eq!(report.failures().next().unwrap().1.code, 5);
}

#[test]
fn an_object_that_another_module_brings_too_stays() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0").objects(&["same"]);
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.source("bar", "1.0").objects(&["same"]);
    clean(&machine.sync(&["bar-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "same.ko"));
    machine.root.remove("usr/src/bar-1.0");
    clean(&machine.sync(&["bar-1.0"], &[]));
    assert!(!machine.installed(K1, "same.ko"));
}

#[test]
fn what_a_package_left_in_its_source_directory_is_no_source() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0/dkms.conf");
    machine.root.write("usr/src/foo-1.0/notes", "an editor's");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.installed(K1, "foo.ko"));
    assert!(!machine.root.exists("var/lib/dkms/foo"), "{}", machine.tree());
}

#[test]
fn strays_of_killed_runs_are_swept() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    for stray in [
        ".build/foo-1.0-x/y",
        ".debts/.tmp-x",
        ".kept/.tmp-foo-1.0/x",
        "foo/.tmp-link",
        "foo/1.0/.tmp-x",
    ] {
        machine.root.write(format!("var/lib/dkms/{stray}"), "");
    }
    machine.root.dir(format!("var/lib/dkms/foo/1.0/{K1}/.tmp_x86_64_abc/module"));
    machine.root.source("bar", "1.0");
    clean(&machine.sync(&["bar-1.0"], &[]));
    assert!(!machine.tree().contains(".tmp"), "{}", machine.tree());
    assert!(!machine.root.exists("var/lib/dkms/.debts"));
}

/// A script that a module runs while it is built.
fn build_script(machine: &Machine, module: &str, script: &str) {
    let path = machine.root.at(format!("usr/src/{module}-1.0/while-building.sh"));
    let text = format!("#!/bin/bash\nROOT={}\n{script}\n", machine.root.path().display());
    fs::write(&path, text).unwrap();
    executable(&path);
}

#[test]
fn modules_are_built_side_by_side() {
    let mut machine = Machine::with_kernel(K1);
    for module in ["foo", "bar"] {
        machine.root.source(module, "1.0").conf_line("PRE_BUILD=while-building.sh");
        // Each waits for the other: one after the other, the first would wait in vain.
        build_script(
            &machine,
            module,
            "touch $ROOT/$module; for i in {1..200}; do [[ -e $ROOT/foo && -e $ROOT/bar ]] && exit; \
             sleep 0.05; done; exit 1",
        );
    }
    machine.jobs = Some(2);
    clean(&machine.sync(&[], &[K1]));
    assert!(machine.installed(K1, "foo.ko") && machine.installed(K1, "bar.ko"));
}

#[rstest]
#[case::in_places_of_their_own(false)]
#[case::without_privileges(true)]
fn no_more_compilers_run_than_the_bound(#[case] without_privileges: bool) {
    let mut machine = Machine { jobs: Some(3), without_privileges, ..Machine::new() };
    let modules = [
        ("a", "make -f many.mk"),
        ("b", "\'make\' -j9 -f many.mk"),
        ("c", "make --jobs=$(nproc) -j -f many.mk"),
        ("d", "MAKEFLAGS=-j9 make -f many.mk"),
        ("e", "make -f many.mk SUB=make"),
    ];
    for release in [K1, K2] {
        machine.root.kernel(release).pkgbase("linux").headers();
    }
    for (module, command) in modules {
        machine.root.source(module, "1.0").conf_line(&format!("MAKE=$'{command}'")).file(
            "many.mk",
            &format!(
                "SUB := +$(MAKE)\nall: 1 2 3 4\n\t$(SUB) -j9 -f many.mk more\n\
                 \t$(MAKE) -C {}/usr/lib/modules/$(kernelver)/build M=$(CURDIR)\n\
                 more: 5 6 7 8\n1 2 3 4 5 6 7 8:\n\t./while-building.sh $@\n",
                machine.root.path().display()
            ),
        );
        // Stands for a compiler: notes how many of its kind run at once, itself included.
        build_script(
            &machine,
            module,
            "cd $ROOT; mkdir -p jobs; me=$(mktemp jobs/XXXXXX); ls jobs | wc -l >> counts; \
             sleep 0.1; rm $me",
        );
    }
    clean(&machine.sync(&[], &[K1, K2]));
    let counts = machine.root.read("counts");
    let counts: Vec<usize> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.len(), modules.len() * 2 * 8, "each compiler of each build ran");
    let most = counts.iter().max().unwrap();
    assert!((2..=3).contains(most), "{counts:?}");
}

#[test]
fn what_builds_upon_another_waits_until_that_is_installed() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("spl", "1.0");
    machine
        .root
        .source("zfs", "1.0")
        .conf_line("BUILD_DEPENDS=spl")
        .conf_line("PRE_BUILD=while-building.sh");
    let placed = format!("usr/lib/modules/{K1}/updates/dkms/spl.ko");
    build_script(&machine, "zfs", &format!("test -e $ROOT/{placed}"));
    machine.jobs = Some(2);
    clean(&machine.sync(&[], &[K1]));
    assert!(machine.installed(K1, "zfs.ko"));
}

#[test]
fn what_builds_upon_a_failed_one_is_skipped() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("spl", "1.0").broken();
    machine.root.source("zfs", "1.0").conf_line("BUILD_DEPENDS=spl");
    machine.root.source("top", "1.0").conf_line("BUILD_DEPENDS=zfs");
    machine.root.source("foo", "1.0");
    let report = machine.sync(&[], &[K1]);
    let failed: Vec<_> = report.failures().map(|(action, _)| action.to_string()).collect();
    assert_eq!(failed, [format!("build spl/1.0 for {K1}")]);
    assert!(machine.installed(K1, "foo.ko"));
    assert!(!machine.installed(K1, "zfs.ko") && !machine.installed(K1, "top.ko"));
}

/// A kernel package is replaced by one of another release.
fn change_kernel(machine: &mut Machine, from: &str, to: &str) {
    machine.root.remove(format!("usr/lib/modules/{from}"));
    machine.root.kernel(to).pkgbase("linux").headers();
    clean(&machine.sync(&[], &[from, to]));
}

#[test]
fn a_kernel_downgrade_starts_no_make() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    let built = format!("var/lib/dkms/foo/1.0/{K1}");
    let before = machine.root.listing(&built);
    change_kernel(&mut machine, K1, K2);
    assert_eq!(machine.builds(), 2);
    assert!(!machine.root.exists(&built));

    change_kernel(&mut machine, K2, K1);
    assert_eq!(machine.builds(), 2, "it was compiled again");
    assert!(machine.installed(K1, "foo.ko"));
    assert_eq!(machine.root.listing(&built), before);
    assert_eq!(machine.plan(&sync(&["foo-1.0"], &[K1])).steps, []);
    // The source was kept, too, and removal finds what was placed.
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.installed(K1, "foo.ko"));
}

#[test]
fn a_release_that_comes_back_with_other_symbols_is_compiled() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    change_kernel(&mut machine, K1, K2);
    machine.root.remove(format!("usr/lib/modules/{K2}"));
    let symbols = "0x87654321\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n";
    machine.root.kernel(K1).pkgbase("linux").headers().file("build/Module.symvers", symbols);
    let plan = machine.plan(&sync(&[], &[K1, K2])).to_string();
    assert!(plan.contains("(not built yet)"), "{plan}");
    clean(&machine.sync(&[], &[K1, K2]));
    assert_eq!(machine.builds(), 3);
}

#[test]
fn a_module_that_is_installed_again_is_found_in_the_cache() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    machine.root.remove("usr/src/foo-1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.root.exists("var/lib/dkms/foo"));
    machine.root.source("foo", "1.0");
    let plan = machine.plan(&sync(&["foo-1.0"], &[])).to_string();
    assert!(plan.contains("(not built yet; found in the cache)"), "{plan}");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert_eq!(machine.builds(), 1);
    assert!(machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists("var/lib/dkms/.kept/foo-1.0"));
}

#[test]
fn what_is_damaged_in_the_cache_is_compiled_again() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    change_kernel(&mut machine, K1, K2);
    let cached = machine.root.at("var/lib/dkms/.cache/objects");
    for entry in fs::read_dir(cached).unwrap().flatten() {
        fs::write(entry.path().join("built/module/foo.ko"), "half").unwrap();
    }
    change_kernel(&mut machine, K2, K1);
    assert_eq!(machine.builds(), 3);
    assert!(machine.installed(K1, "foo.ko"));
    assert_ne!(machine.root.read(format!("usr/lib/modules/{K1}/vmlinuz")), "half");
    // And is kept for the next time.
    change_kernel(&mut machine, K1, K2);
    assert_eq!(machine.builds(), 4);
    change_kernel(&mut machine, K2, K1);
    assert_eq!(machine.builds(), 4);
}

#[test]
fn the_cache_has_a_bound() {
    let mut machine = Machine::with_kernel(K1);
    for module in ["bar", "foo"] {
        let dir = format!("{module}-1.0");
        machine.root.source(module, "1.0").file("big.txt", "big");
        clean(&machine.sync(&[&dir], &[]));
        machine.root.remove(format!("usr/src/{dir}"));
        clean(&machine.sync(&[&dir], &[]));
    }
    let entries = Cache::of(&machine.site().trees).entries();
    let sizes: Vec<u64> = entries.iter().map(|entry| entry.size).collect();
    let room = sizes.iter().sum::<u64>() + sizes[0] / 2;
    machine.root.write("etc/dkms/alpm-dkms.toml", format!("[cache]\nsize = {room}\n"));
    // bar is of use once more; so it is foo that goes when another one comes.
    machine.root.source("bar", "1.0").file("big.txt", "big");
    clean(&machine.sync(&["bar-1.0"], &[]));
    machine.root.source("baz", "1.0");
    clean(&machine.sync(&["baz-1.0"], &[]));
    let left: BTreeSet<String> = Cache::of(&machine.site().trees)
        .entries()
        .into_iter()
        .map(|entry| entry.module.to_string())
        .collect();
    assert_eq!(left, ["bar/1.0", "baz/1.0"].map(String::from).into());
    assert_eq!(machine.builds(), 3);

    // None at all.
    machine.root.write("etc/dkms/alpm-dkms.toml", "[cache]\nsize = 0\n");
    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(!machine.root.exists("var/lib/dkms/.cache/objects"));
}

/// Two kernels, and a module whose build for each writes into its directory, by the path that confs
/// name, and does `then`. Where the machine can, each build waits until the other has begun.
fn two_kernels(machine: &mut Machine, then: &str) {
    machine.root.kernel(K1).pkgbase("linux").headers();
    machine.root.kernel(K2).pkgbase("linux").headers();
    machine.root.source("foo", "1.0").conf_line("PRE_BUILD=while-building.sh");
    machine.jobs = Some(2);
    let site = machine.site();
    let wait = if site.tools.confinement.has_own_mounts(&site.tools, &site.trees.dkms) {
        format!(
            "for i in {{1..200}}; do [[ -e $ROOT/{K1} && -e $ROOT/{K2} ]] && break; sleep 0.05; done
             [[ -e $ROOT/{K1} && -e $ROOT/{K2} ]] || exit 1"
        )
    } else {
        "[[ ! -e $ROOT/var/lib/dkms/.build ]] || exit 1".to_owned()
    };
    let script = format!(
        "build=$ROOT/var/lib/dkms/foo/1.0/build; [[ $PWD == \"$build\" ]] || exit 2
         echo $kernelver > $build/mine; touch $ROOT/$kernelver; {wait}
         [[ $(< $build/mine) == \"$kernelver\" ]] || exit 3; {then}"
    );
    build_script(machine, "foo", &script);
}

#[rstest]
#[case::in_places_of_their_own(false)]
#[case::one_after_the_other(true)]
fn one_module_is_built_for_several_kernels(#[case] without_privileges: bool) {
    let mut machine = Machine { without_privileges, ..Machine::new() };
    two_kernels(&mut machine, "");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K1, "foo.ko") && machine.installed(K2, "foo.ko"));
    assert!(!machine.tree().contains("build/"), "{}", machine.tree());
}

#[test]
fn what_a_failed_build_made_is_where_its_user_looks_until_it_succeeds() {
    let mut machine = Machine::new();
    two_kernels(&mut machine, &format!("[[ $kernelver != {K2} ]]"));
    let report = machine.sync(&["foo-1.0"], &[]);
    let failed: Vec<_> = report.failures().map(|(action, _)| action.to_string()).collect();
    assert_eq!(failed, [format!("build foo/1.0 for {K2}")]);
    assert!(machine.installed(K1, "foo.ko"));
    let left = "var/lib/dkms/foo/1.0/build";
    assert_eq!(machine.root.read(format!("{left}/mine")), format!("{K2}\n"));
    let log = fs::read_link(machine.root.at(left).join("make.log")).unwrap();
    let log = machine.root.read(log.strip_prefix("/").unwrap());
    assert!(log.contains(&format!("foo/1.0 for kernel {K2}")), "{log}");
    assert!(!machine.root.exists("var/lib/dkms/.build"));

    machine.root.source("foo", "1.0");
    clean(&machine.sync(&["foo-1.0"], &[]));
    assert!(machine.installed(K2, "foo.ko"));
    assert!(!machine.tree().contains("build/"), "{}", machine.tree());
}

fn executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A module whose build runs `script` before it compiles; `$ROOT` is the root.
fn scripted(machine: &Machine, name: &str, script: &str) {
    let root = machine.root.path().display().to_string();
    machine
        .root
        .source(name, "1.0")
        .file("before.sh", &format!("ROOT={root}\n{script}\n"))
        .conf_line(&format!(
            "MAKE='sh before.sh && make -C {root}/usr/lib/modules/{K1}/build M=$PWD'"
        ));
}

/// What gcc's driver says when the kernel kills the compiler.
const KILLED: &str =
    "echo 'gcc: fatal error: Killed signal terminated program cc1' >&2; kill -9 $$";

#[test]
fn a_build_killed_for_memory_is_tried_again_alone_and_with_one_job() {
    let mut machine = Machine::with_kernel(K1);
    machine.jobs = Some(3);
    // The second time it looks who else is there, and whether it can have a second job.
    let jobs = "all: a b; a b:; @mkdir $$ROOT/two && sleep 0.3 && rmdir $$ROOT/two";
    scripted(
        &machine,
        "hungry",
        &format!(
            "export ROOT; [ -e $ROOT/tried ] || {{ touch $ROOT/tried; {KILLED}; }}\n\
             ls $ROOT | grep busy\n\
             printf '{}' | make -f - && ls $ROOT | grep -c busy > $ROOT/beside; true",
            jobs.replace("; ", "\\n").replace(":\\n@", ":\\n\\t@")
        ),
    );
    for name in ["one", "two", "three"] {
        scripted(
            &machine,
            name,
            &format!("touch $ROOT/busy.{name}; sleep 1; rm $ROOT/busy.{name}"),
        );
    }
    let report = machine.sync(&["hungry-1.0", "one-1.0", "two-1.0", "three-1.0"], &[]);
    clean(&report);
    assert_eq!(machine.root.read("beside"), "0\n");
    assert!(machine.installed(K1, "hungry.ko") && machine.installed(K1, "three.ko"));
    let said = format!(
        "hungry/1.0 ran out of memory for {K1}: it is tried once more, alone, when the others are done"
    );
    assert_eq!(machine.heard.lines, [said]);
}

#[test]
fn a_build_that_is_killed_for_memory_even_alone_fails_and_stays_owed() {
    let mut machine = Machine::with_kernel(K1);
    scripted(&machine, "hungry", &format!("echo x >> $ROOT/tries; {KILLED}"));
    machine.root.source("foo", "1.0");
    let report = machine.sync(&["hungry-1.0", "foo-1.0"], &[]);
    assert_eq!(machine.root.read("tries"), "x\nx\n");
    let failures: Vec<_> = report.failures().collect();
    let [(_, failed)] = failures[..] else { panic!("{failures:?}") };
    assert!(failed.starved && failed.passing, "{failed:?}");
    let begins = "it ran out of memory, as it seems (";
    let ends = "alone, too: it needs more memory or swap than is left by what else runs";
    assert!(failed.message.starts_with(begins) && failed.message.ends_with(ends), "{failed:?}");
    let cause = "gcc: fatal error: Killed signal terminated program cc1";
    assert_eq!(failed.cause.as_deref(), Some(cause));
    assert!(machine.installed(K1, "foo.ko"));
    assert!(machine.root.exists("var/lib/dkms/.debts"), "it is owed");
    let debts = Debts::of(&machine.site().trees).read();
    let owed = Debt::Install { module: id("hungry/1.0"), kernel: kernel(K1) };
    assert!(
        debts.contains(&owed) || debts.contains(&Debt::Source("hungry-1.0".into())),
        "{debts:?}"
    );
}

#[test]
fn what_the_kernel_killed_for_memory_is_known_by_its_count() {
    let mut machine = Machine::with_kernel(K1);
    // In a namespace nothing but the kernel could kill the first process.
    machine.without_privileges = true;
    machine.root.write("proc/vmstat", "oom_kill 3\n");
    // No word about it in the log: it is make's own shell that is killed.
    let kill = "echo 'oom_kill 4' > $ROOT/proc/vmstat; kill -9 $PPID";
    scripted(
        &machine,
        "hungry",
        &format!("[ -e $ROOT/tried ] || {{ touch $ROOT/tried; {kill}; }}"),
    );
    clean(&machine.sync(&["hungry-1.0"], &[]));
    assert_eq!(machine.heard.lines.len(), 1, "{:?}", machine.heard.lines);
}

#[test]
fn a_compiler_error_is_no_want_of_memory_whatever_was_killed_meanwhile() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.write("proc/vmstat", "oom_kill 3\n");
    let wrong = "echo 'oom_kill 4' > $ROOT/proc/vmstat; echo 'x.c:1:1: error: no' >&2; exit 1";
    scripted(&machine, "wrong", wrong);
    let report = machine.sync(&["wrong-1.0"], &[]);
    let failed = report.failures().next().unwrap().1;
    assert!(!failed.starved && !failed.passing, "{failed:?}");
    assert_eq!(machine.heard.lines, [""; 0]);
}

#[test]
fn no_more_builds_run_than_fit_into_memory() {
    let mut machine = Machine::with_kernel(K1);
    machine.jobs = Some(4);
    machine.root.write("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 307200 kB\n");
    for name in ["one", "two", "three"] {
        scripted(&machine, name, "mkdir $ROOT/lock && sleep 0.3 && rmdir $ROOT/lock");
    }
    clean(&machine.sync(&["one-1.0", "two-1.0", "three-1.0"], &[]));
    let said = "1 instead of 4 jobs at once: 300 MiB of memory are available, and [build] \
                memory_per_job in /etc/dkms/alpm-dkms.toml counts on 256 MiB for each";
    assert_eq!(machine.heard.lines, [said]);
}

#[test]
fn a_build_that_hangs_is_ended_with_its_daemons_and_the_others_go_on() {
    let mut machine = Machine::with_kernel(K1);
    machine.root.write("etc/dkms/alpm-dkms.toml", "[build]\ntimeout = 3\n");
    let forever = format!("600.{}", std::process::id());
    scripted(
        &machine,
        "hangs",
        &format!("setsid -f sleep {forever}; sleep {forever} & sleep {forever}"),
    );
    machine.root.source("foo", "1.0");
    for without_privileges in [false, true] {
        machine.without_privileges = without_privileges;
        let report = machine.command(Verb::Install, "hangs/1.0", K1);
        let failed = report.failures().next().unwrap().1;
        let want = "it was not finished after 3 s, the limit of [build] timeout in \
                    /etc/dkms/alpm-dkms.toml";
        assert_eq!(failed.message, want);
        let lines =
            fs::read_dir("/proc").unwrap().flatten().map(|it| fs::read(it.path().join("cmdline")));
        let mut lines = lines.flatten().map(|line| String::from_utf8_lossy(&line).into_owned());
        assert!(!lines.any(|line| line.contains(&forever)), "a daemon is left");
    }
    clean(&machine.sync(&["foo-1.0"], &[]));
}
