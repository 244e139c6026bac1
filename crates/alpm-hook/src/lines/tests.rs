use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dkms_engine::dkms_tree::Reason;
use dkms_engine::facts::{self, Scope};
use dkms_engine::failure::Failure;
use dkms_engine::machine::Machine;
use dkms_engine::plan::{Job, Note};
use dkms_engine::report::Report;
use testroot::TestRoot;

use super::*;
use crate::package_query::Packages;

const NEW: &str = "7.2.13-arch1-1";
const LTS: &str = "6.12.8-1-lts";

fn id(text: &str) -> ModuleId {
    text.parse().expect("a module")
}

fn release(text: &str) -> KernelRelease {
    text.parse().expect("a release")
}

fn build(module: &str, kernel: &str, why: Reason) -> Step {
    let (module, kernel) = (id(module), release(kernel));
    let action = Action::Build { module, kernel };
    Step { action, why: vec![why] }
}

fn install(module: &str, kernel: &str, replaces: Option<&str>) -> Step {
    let action =
        Action::Install { module: id(module), kernel: release(kernel), replaces: replaces.map(id) };
    Step { action, why: Vec::new() }
}

fn uninstall(module: &str, kernel: &str) -> Step {
    let (module, kernel) = (id(module), release(kernel));
    step(Action::Uninstall { module, kernel, successors: Vec::new() })
}

fn step(action: Action) -> Step {
    Step { action, why: Vec::new() }
}

fn packages() -> Packages {
    Packages::read(
        br#"{"owners": {"usr/src/zfs-2.4.4/dkms.conf": {"name": "zfs-dkms", "version": "2.4.4-1"}},
             "kernels": {"7.2.13-arch1-1": {"kernel": {"name": "linux", "version": "7.2.13.arch1-1"},
                                            "headers": null, "headers_package": "linux-headers"},
                         "6.12.8-1-lts": {"kernel": {"name": "linux-lts", "version": "6.12.8-1"},
                                          "headers": null,
                                          "headers_package": "linux-lts-headers"}}}"#,
    )
    .expect("an answer")
}

/// Returns the output of a run of `plan` in which each step takes 4.1 seconds and ends with
/// `outcome`.
fn run(plan: &Plan, outcome: impl Fn(&Action) -> Outcome) -> String {
    // Only one kernel has a `pkgbase` file, although pacman knows the packages of both.
    let root = TestRoot::new();
    root.kernel(NEW).pkgbase("linux");
    root.kernel(LTS);
    let machine = Machine::for_hook(root.path());
    let facts = facts::read(&machine, &Scope { shallow: true, ..Scope::default() });
    let mut lines = Lines::new(Vec::new(), PackageNames::new(packages(), &facts));
    lines.event(&Event::Planned(plan));
    let mut report = Report::default();
    for (task, step) in plan.tasks().flat_map(|task| plan.steps_of(task).map(move |s| (task, s))) {
        lines.event(&Event::Started { task, step });
        let (outcome, elapsed) = (outcome(&step.action), Duration::from_millis(4100));
        let finished = Finished { task, step: step.clone(), outcome, elapsed };
        lines.event(&Event::Finished(&finished));
        report.finished.push(finished);
    }
    lines.summary(plan, &report);
    String::from_utf8(lines.out.into_inner()).expect("text")
}

/// Returns a plan of `steps`. An installation that follows the build of the same module joins the
/// build's job.
fn plan(steps: Vec<Step>, notes: Vec<Note>) -> Plan {
    let mut plan = Plan { notes, ..Plan::default() };
    for step in steps {
        match step.action.clone() {
            Action::Build { module, kernel } => plan.jobs.push(Job {
                module,
                kernel,
                after: Vec::new(),
                with: BTreeSet::new(),
                depends: BTreeMap::new(),
                build: step,
                install: None,
            }),
            Action::Install { module, kernel, .. } => match plan.jobs.last_mut() {
                Some(job) if (&job.module, &job.kernel) == (&module, &kernel) => {
                    job.install = Some(step);
                }
                _ => plan.before.push(step),
            },
            _ if plan.jobs.is_empty() => plan.before.push(step),
            _ => plan.after.push(step),
        }
    }
    plan
}

#[test]
fn reports_a_kernel_upgrade() {
    let old = release("7.2.12-arch1-1");
    let plan = plan(
        vec![
            step(Action::Register(id("zfs/2.4.4"))),
            build("zfs/2.4.4", NEW, Reason::NotBuilt),
            install("zfs/2.4.4", NEW, None),
            build("vhba-module/20260313", NEW, Reason::NotBuilt),
            install("vhba-module/20260313", NEW, None),
            install("foo/1.0", LTS, None),
            uninstall("zfs/2.4.4", old.as_str()),
            step(Action::Unbuild(id("zfs/2.4.4"), old.clone())),
            step(Action::Unbuild(id("foo/1.0"), old.clone())),
            step(Action::Depmod(release(NEW))),
            step(Action::RemoveLeftovers(old)),
        ],
        Vec::new(),
    );
    insta::assert_snapshot!(run(&plan, |_| Outcome::Done));
}

#[test]
fn reports_builds_restored_from_the_cache() {
    let cached = |module: &str| build(module, NEW, Reason::Cached);
    let steps = vec![
        cached("zfs/2.4.4"),
        install("zfs/2.4.4", NEW, None),
        build("foo/1.0", NEW, Reason::NotBuilt),
        install("foo/1.0", NEW, None),
        cached("bar/1.0"),
    ];
    insta::assert_snapshot!(run(&plan(steps, Vec::new()), |_| Outcome::Done), @r"
    Kernel modules to build and install:
      for 7.2.13-arch1-1 (linux): foo/1.0 (not built yet)
    (1/3) zfs/2.4.4 for 7.2.13-arch1-1: installed from the cache
    (2/3) foo/1.0 for 7.2.13-arch1-1: built and installed in 8.2 s
    (3/3) bar/1.0 for 7.2.13-arch1-1: restored from the cache
    3 modules installed.
    ");
}

#[test]
fn reports_a_module_upgrade() {
    let plan = plan(
        vec![
            build("zfs/2.4.4", NEW, Reason::NotBuilt),
            install("zfs/2.4.4", NEW, Some("zfs/2.4.3")),
            step(Action::Unbuild(id("zfs/2.4.3"), release(NEW))),
            step(Action::Deregister(id("zfs/2.4.3"))),
            step(Action::Depmod(release(NEW))),
        ],
        Vec::new(),
    );
    insta::assert_snapshot!(run(&plan, |_| Outcome::Done));
}

#[test]
fn reports_a_failure_among_other_modules() {
    let fails = |action: &Action| match action {
        Action::Build { module, .. } if *module == id("zfs/2.4.4") => Outcome::Failed(Failure {
            cause: Some("zfs_super.c:12:2: error: too few arguments to function 'iput'".into()),
            means: Some(
                "in this kernel, the function iput takes a different number of arguments".into(),
            ),
            hint: Some("see: dkms explain zfs/2.4.4 -k 7.2.13-arch1-1".into()),
            log: Some(PathBuf::from("/var/lib/dkms/.log/zfs-2.4.4-7.2.13-arch1-1-x86_64.log")),
            ..Failure::new(10, "make failed (exit status 2)")
        }),
        Action::Install { module, .. } if *module == id("zfs/2.4.4") => {
            Outcome::Skipped("not built".into())
        }
        Action::Build { module, .. } if *module == id("zfs-addon/1") => {
            Outcome::Skipped("dependency zfs failed".into())
        }
        Action::Depmod(_) => {
            Outcome::Failed(Failure::new(6, "depmod -a failed (exit status 1): no\nmodprobe waits"))
        }
        _ => Outcome::Done,
    };
    let plan = plan(
        vec![
            build("foo/1.0", NEW, Reason::Source),
            install("foo/1.0", NEW, None),
            build("zfs/2.4.4", NEW, Reason::Source),
            install("zfs/2.4.4", NEW, Some("zfs/2.4.3")),
            build("zfs-addon/1", NEW, Reason::Source),
            build("bar/1.0", LTS, Reason::KernelSymbols),
            install("bar/1.0", LTS, None),
            step(Action::Depmod(release(NEW))),
        ],
        vec![Note::Kept { module: id("zfs/2.4.3"), kernel: release(NEW) }],
    );
    insta::assert_snapshot!(run(&plan, fails));
}

#[test]
fn reports_modules_that_the_kernel_ships() {
    let declined = |action: &Action| match action {
        Action::Install { .. } => Outcome::Declined(
            "the kernel already has an identical module: \
             /usr/lib/modules/7.2.13-arch1-1/kernel/asus.ko"
                .into(),
        ),
        _ => Outcome::Done,
    };
    let (module, kernel) = (id("bar/1.0"), release(NEW));
    let why = "part of the kernel since 7.2 (OBSOLETE_BY)".into();
    let plan = plan(
        vec![build("foo/1.0", NEW, Reason::NotBuilt), install("foo/1.0", NEW, None)],
        vec![Note::Declined { module, kernel, why }],
    );
    insta::assert_snapshot!(run(&plan, declined), @r"
    Kernel modules to build and install:
      for 7.2.13-arch1-1 (linux): foo/1.0 (not built yet)
    (1/1) foo/1.0 for 7.2.13-arch1-1: built, not installed
    note: bar/1.0 for 7.2.13-arch1-1: not installed: part of the kernel since 7.2 (OBSOLETE_BY)
      run: dkms install bar/1.0 -k 7.2.13-arch1-1 --force
      see: module.NAME.prefer in alpm-dkms.toml(5)
    note: foo/1.0 for 7.2.13-arch1-1: not installed: the kernel already has an identical module: /usr/lib/modules/7.2.13-arch1-1/kernel/asus.ko
      run: dkms install foo/1.0 -k 7.2.13-arch1-1 --force
      see: module.NAME.prefer in alpm-dkms.toml(5)
    ");
}

#[test]
fn reports_notes_and_an_invalid_conf() {
    let action = Action::Fail {
        module: id("foo/1.0"),
        kernel: Some(release(NEW)),
        failure: Failure::new(8, "/usr/src/foo-1.0/dkms.conf: line 3: PACKAGE_NAME is missing"),
    };
    let notes = vec![
        Note::NoHeaders { kernel: release(LTS), package: None, other: None },
        Note::NoHeaders {
            kernel: release(NEW),
            package: Some("linux".into()),
            other: Some(release("7.2.14-arch1-1")),
        },
        Note::Excluded {
            module: id("bar/1.0"),
            kernel: release(NEW),
            why: "needs CONFIG_PCI".into(),
        },
        Note::KnownFailure {
            module: id("zfs/2.4.4"),
            kernel: release(NEW),
            what: "zfs_super.c:12:2: error: too few arguments".into(),
            log: "/var/lib/dkms/.log/zfs.log".into(),
            stays: Some(id("zfs/2.4.3")),
        },
        Note::Already { module: id("foo/1.0"), kernel: release(LTS), state: "installed" },
    ];
    let failed = Outcome::Failed(Failure::new(
        8,
        "/usr/src/foo-1.0/dkms.conf: line 3: PACKAGE_NAME is missing",
    ));
    insta::assert_snapshot!(run(&plan(vec![step(action)], notes), |_| failed.clone()));
}

#[test]
fn reports_a_removal() {
    let plan = plan(
        vec![
            uninstall("zfs/2.4.4", LTS),
            step(Action::Unbuild(id("zfs/2.4.4"), release(LTS))),
            uninstall("zfs/2.4.4", NEW),
            step(Action::Unbuild(id("zfs/2.4.4"), release(NEW))),
            step(Action::Deregister(id("zfs/2.4.4"))),
            uninstall("foo/1.0", NEW),
        ],
        Vec::new(),
    );
    insta::assert_snapshot!(run(&plan, |_| Outcome::Done));
}

#[test]
fn prints_nothing_if_there_is_nothing_to_do() {
    let note = Note::Already { module: id("foo/1.0"), kernel: release(NEW), state: "installed" };
    assert_eq!(run(&plan(Vec::new(), vec![note]), |_| Outcome::Done), "");
}

#[test]
fn prints_the_plan_of_a_dry_run() {
    let plan = plan(
        vec![build("zfs/2.4.4", NEW, Reason::NotBuilt), install("zfs/2.4.4", NEW, None)],
        Vec::new(),
    );
    let mut lines = Lines::new(Vec::new(), PackageNames::default());
    lines.dry_run(&plan);
    lines.dry_run(&Plan::default());
    insta::assert_snapshot!(String::from_utf8(lines.out.into_inner()).expect("text"));
}

#[test]
fn counts_modules_and_kernels() {
    let both = |first: &str, second: &str| {
        plan(
            vec![
                build(first, NEW, Reason::NotBuilt),
                install(first, NEW, None),
                build(second, LTS, Reason::NotBuilt),
                install(second, LTS, None),
            ],
            Vec::new(),
        )
    };
    let last = |text: String| text.lines().last().unwrap_or_default().to_owned();
    let done = |_: &Action| Outcome::Done;
    assert_eq!(last(run(&both("foo/1", "foo/1"), done)), "1 module installed for 2 kernels.");
    assert_eq!(last(run(&both("foo/1", "bar/1"), done)), "2 modules installed.");
    let fails = |action: &Action| match action.kernel() {
        Some(kernel) if *kernel == release(LTS) => Outcome::Failed(Failure::new(10, "no")),
        _ => Outcome::Done,
    };
    let text = run(&both("foo/1", "foo/1"), fails);
    let want = "\n1 module for 2 kernels: 1 build installed, 1 not installed. Errors:\n";
    assert!(text.contains(want), "{text}");
    let text = run(&both("foo/1", "bar/1"), fails);
    assert!(text.contains("\n1 module installed, 1 not installed. Errors:\n"), "{text}");
}

#[test]
fn a_failure_has_one_command() {
    let retry = "  run: dkms install foo/1 -k 7.2.13-arch1-1 --verbose\n";
    for (failure, want) in [
        (Failure::new(10, "make failed"), retry),
        // The option is a word of the module's own script.
        (Failure::new(101, "PRE_INSTALL script failed (exit status 1): pre.sh --force"), retry),
        (Failure::new(1, "full").with_hint("free disk space, then run: dkms autoinstall"), ""),
        (Failure::new(10, "make failed").with_hint("see: dkms explain foo/1 -k 7"), ""),
    ] {
        let plan = plan(vec![build("foo/1", NEW, Reason::NotBuilt)], Vec::new());
        let hint = failure.hint.clone();
        let text = run(&plan, |_| Outcome::Failed(failure.clone()));
        assert_eq!(text.matches("run: ").count() + text.matches("see: ").count(), 1, "{text}");
        assert!(text.ends_with(&hint.map_or(want.into(), |hint| format!("  {hint}\n"))), "{text}");
    }
}

#[test]
fn formats_durations() {
    let texts = [0.04, 9.94, 41.7, 119.0, 200.0].map(|time| seconds(Duration::from_secs_f64(time)));
    assert_eq!(texts, ["0.0 s", "9.9 s", "41 s", "119 s", "3 min 20 s"]);
}
