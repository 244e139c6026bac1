//! A small root, and the engine's runs on it.

use dkms_engine::act;
use dkms_engine::facts::{self, Scope};
use dkms_engine::machine::{Machine, Memory};
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::os::process::{Bond, Confinement};
use dkms_engine::plan::{self, Plan, Request, Verb};
use dkms_engine::report::{Event, Report, Watch};
use testroot::TestRoot;

pub const K1: &str = "7.2.12-arch1-1";
pub const K2: &str = "7.2.13-arch1-1";

/// Where foo/1.0 is built for [`K1`], and where its object is placed.
pub const BUILT: &str = "var/lib/dkms/foo/1.0/7.2.12-arch1-1/x86_64";
pub const PLACED: &str = "usr/lib/modules/7.2.12-arch1-1/updates/dkms/foo.ko";

/// The lines and phases of all runs.
#[derive(Default)]
pub struct Heard {
    pub lines: Vec<String>,
    pub phases: Vec<String>,
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

/// A root with programs that count, and what is special about its machine.
pub struct Fixture {
    pub root: TestRoot,
    pub heard: Heard,
    /// The maximum number of jobs; by default one for each processor.
    pub jobs: Option<usize>,
    /// Whether programs cannot be confined, as for a user who is not root.
    pub without_privileges: bool,
    pub change: fn(&mut Machine),
}

impl Fixture {
    /// A root with kernel [`K1`] and its headers.
    pub fn new() -> Self {
        let fixture = Self::without_kernels();
        fixture.root.kernel(K1).pkgbase("linux").headers();
        fixture
    }

    pub fn without_kernels() -> Self {
        Self {
            root: TestRoot::new(),
            heard: Heard::default(),
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
        // Tests must not depend on the memory of the real machine.
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
        let machine = self.machine();
        let facts = facts::read(&machine, scope);
        let plan = plan::make(request, &facts).unwrap();
        act::carry_out(&plan, &facts, &machine, &mut self.heard)
    }

    /// Runs what a hook runs after a transaction with these targets.
    pub fn sync(&mut self, sources: &[&str], kernels: &[&str]) -> Report {
        self.run(&sync(sources, kernels))
    }

    /// Runs a command of dkms for [`K1`].
    pub fn command(&mut self, verb: Verb, module: &str) -> Report {
        let scope = Scope { kernels: Some([kernel(K1)].into()), ..Scope::default() };
        let kernels = Some(vec![kernel(K1)]);
        let force = self.machine().options.force;
        self.run_within(&scope, &Request::Command { verb, module: id(module), kernels, force })
    }

    pub fn install(&mut self) -> Report {
        self.command(Verb::Install, "foo/1.0")
    }

    /// Lists the dkms tree without its caches.
    pub fn tree(&self) -> String {
        let hidden = |line: &&str| ![".cache/", ".bin/"].iter().any(|dir| line.contains(dir));
        let listing = self.root.listing("var/lib/dkms");
        listing.lines().filter(hidden).collect::<Vec<_>>().join("\n")
    }

    pub fn installed(&self, release: &str, object: &str) -> bool {
        self.root.exists(format!("usr/lib/modules/{release}/updates/dkms/{object}"))
    }

    /// The number of builds so far.
    pub fn builds(&self) -> usize {
        self.root.calls("make").iter().filter(|call| call.contains("KERNELRELEASE=")).count()
    }

    /// Gives foo/1.0 a script for a directive.
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

pub fn sync(sources: &[&str], kernels: &[&str]) -> Request {
    Request::Sync {
        sources: sources.iter().map(|dir| (*dir).to_owned()).collect(),
        kernels: kernels.iter().map(|release| kernel(release)).collect(),
    }
}

pub fn kernel(release: &str) -> KernelRelease {
    release.parse().unwrap()
}

pub fn id(text: &str) -> ModuleId {
    text.parse().unwrap()
}

/// Asserts that a run had no failures, and no warnings.
#[track_caller]
pub fn clean(report: &Report) {
    let failures: Vec<_> = report.failures().collect();
    assert!(report.is_clean(), "{failures:#?} {:?}", report.trouble);
    assert_eq!(report.warnings, [""; 0]);
}

/// Asserts that a run had one failure with this exit code, and returns its message.
#[track_caller]
pub fn failed(report: &Report, code: u8) -> String {
    let failures: Vec<_> = report.failures().collect();
    let [(_, failure)] = failures[..] else { panic!("{failures:#?}") };
    assert_eq!(failure.code, code, "{failure:?}");
    failure.message.clone()
}
