//! A test root, and functions that run the engine in it.

use std::collections::BTreeSet;

use dkms_engine::act;
use dkms_engine::facts::{self, Scope, Subjects};
use dkms_engine::machine::{Machine, Memory};
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::os::process::{Bond, Confinement};
use dkms_engine::plan::{self, Plan, Request, Verb};
use dkms_engine::report::{Event, Report, Watch};
use testroot::TestRoot;

pub const K1: &str = "7.2.12-arch1-1";
pub const K2: &str = "7.2.13-arch1-1";

/// The directory of the build of foo/1.0 for [`K1`].
pub const BUILT: &str = "var/lib/dkms/foo/1.0/7.2.12-arch1-1/x86_64";
/// The path of the installed object of foo/1.0 for [`K1`].
pub const PLACED: &str = "usr/lib/modules/7.2.12-arch1-1/updates/dkms/foo.ko";

/// The output lines and build phases of all runs.
#[derive(Default)]
pub struct Output {
    pub lines: Vec<String>,
    pub phases: Vec<String>,
}

impl Watch for Output {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Line(line) => self.lines.push((*line).to_owned()),
            Event::Phase { step, phase, .. } => {
                self.phases.push(format!("{}: {phase}", step.action));
            }
            _ => {}
        }
    }
}

/// A test root whose fake programs record their calls, and the settings of the machine in it.
pub struct Fixture {
    pub root: TestRoot,
    pub output: Output,
    /// The maximum number of parallel jobs; `None` for one job per processor.
    pub jobs: Option<usize>,
    /// Whether to run programs without confinement, as for a user other than root.
    pub without_privileges: bool,
    /// Changes each machine that [`Fixture::machine`] creates.
    pub change: fn(&mut Machine),
}

impl Fixture {
    /// Creates a fixture with the kernel [`K1`] and its headers.
    pub fn new() -> Self {
        let fixture = Self::without_kernels();
        fixture.root.kernel(K1).pkgbase("linux").headers();
        fixture
    }

    pub fn without_kernels() -> Self {
        Self {
            root: TestRoot::new(),
            output: Output::default(),
            jobs: None,
            without_privileges: false,
            change: |_| {},
        }
    }

    pub fn machine(&self) -> Machine {
        let mut machine = Machine::for_hook(self.root.path());
        machine.arch = "x86_64".parse().unwrap();
        machine.tools.depmod = self.root.depmod();
        self.root.make();
        machine.env = machine.env.first_in_path(&self.root.programs());
        if self.without_privileges {
            machine.tools.confinement = Confinement::known(Bond::None);
        }
        if let Some(jobs) = self.jobs {
            machine.settings.set_jobs(jobs);
        }
        // The memory of the real machine must not affect the tests.
        machine.memory = Memory::at(&self.root.at("proc"), &self.root.at("cgroup"));
        (self.change)(&mut machine);
        machine
    }

    pub fn plan(&self, request: &Request) -> Plan {
        let facts = facts::read(&self.machine(), &Scope::default());
        plan::make(request, &facts).unwrap()
    }

    pub fn run(&mut self, request: &Request) -> Report {
        self.run_within(&Scope::default(), request)
    }

    fn run_within(&mut self, scope: &Scope, request: &Request) -> Report {
        self.run_on(&self.machine(), scope, request)
    }

    fn run_on(&mut self, machine: &Machine, scope: &Scope, request: &Request) -> Report {
        let facts = facts::read(machine, scope);
        let plan = plan::make(request, &facts).unwrap();
        act::carry_out(&plan, &facts, machine, &mut self.output)
    }

    /// Runs the request of the hook for a transaction that changes `sources` and `kernels`.
    pub fn sync(&mut self, sources: &[&str], kernels: &[&str]) -> Report {
        self.run(&sync(sources, kernels))
    }

    /// On `machine`, runs the request of the hook for a transaction that changes `sources`.
    pub fn sync_on(&mut self, machine: &Machine, sources: &[&str]) -> Report {
        self.run_on(machine, &Scope::default(), &sync(sources, &[]))
    }

    /// Runs a dkms command for [`K1`].
    pub fn command(&mut self, verb: Verb, module: &str) -> Report {
        let scope = Scope { kernels: Some([kernel(K1)].into()), ..Scope::default() };
        let kernels = Some(vec![kernel(K1)]);
        let force = self.machine().options.force;
        self.run_within(&scope, &Request::Command { verb, module: id(module), kernels, force })
    }

    pub fn install(&mut self) -> Report {
        self.command(Verb::Install, "foo/1.0")
    }

    /// Adds an object to the kernel's own objects, as the kernel's package would. Returns the path
    /// of the object.
    pub fn ship(&self, release: &str, path: &str, object: &[u8]) -> String {
        let order = format!("usr/lib/modules/{release}/modules.order");
        self.root.write(&order, self.root.read(&order) + path + "\n");
        let path = format!("usr/lib/modules/{release}/{path}");
        self.root.write(&path, object);
        path
    }

    /// Returns a listing of the dkms tree without `.cache` and `.bin`.
    pub fn tree(&self) -> String {
        let hidden = |line: &&str| ![".cache/", ".bin/"].iter().any(|dir| line.contains(dir));
        let listing = self.root.listing("var/lib/dkms");
        listing.lines().filter(hidden).collect::<Vec<_>>().join("\n")
    }

    pub fn installed(&self, release: &str, object: &str) -> bool {
        self.root.exists(format!("usr/lib/modules/{release}/updates/dkms/{object}"))
    }

    /// Returns the number of modules that have been compiled so far.
    pub fn builds(&self) -> usize {
        self.root.calls("make").iter().filter(|call| call.contains("KERNELRELEASE=")).count()
    }

    /// Adds a script for `directive` to the module foo/1.0. Creates the module if it does not
    /// exist.
    pub fn script(&self, directive: &str, text: &str) {
        let conf = "usr/src/foo-1.0/dkms.conf";
        if !self.root.exists(conf) {
            self.root.source("foo", "1.0");
        }
        let old = self.root.read(conf);
        self.root.write(conf, format!("{old}{directive}=\"{directive}.sh an argument\"\n"));
        let script = format!("usr/src/foo-1.0/{directive}.sh");
        self.root.executable(script, &format!("#!/bin/sh\n{text}\n"));
    }
}

/// Returns the request of a hook after a transaction that changed `sources` and `kernels`. Those
/// that exist were installed or replaced, and the others were removed.
pub fn sync(sources: &[&str], kernels: &[&str]) -> Request {
    let changed = Subjects {
        sources: sources.iter().map(|dir| (*dir).to_owned()).collect(),
        kernels: kernels.iter().map(|release| kernel(release)).collect(),
    };
    Request::Sync { arrived: changed.clone(), departed: changed, headers: BTreeSet::new() }
}

pub fn kernel(release: &str) -> KernelRelease {
    release.parse().unwrap()
}

pub fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

/// Asserts that a run had no errors and no warnings.
#[track_caller]
pub fn assert_clean(report: &Report) {
    let failures: Vec<_> = report.failures().collect();
    assert!(report.is_clean(), "{failures:#?} {:?}", report.errors);
    assert_eq!(report.warnings, [""; 0]);
}

/// Asserts that a run had exactly one failure, with the exit code `code`. Returns the message of
/// the failure.
#[track_caller]
pub fn assert_failed(report: &Report, code: u8) -> String {
    let failures: Vec<_> = report.failures().collect();
    let [(_, failure)] = failures[..] else { panic!("{failures:#?}") };
    assert_eq!(failure.code, code, "{failure:?}");
    failure.message.clone()
}
