//! The engine on small roots: fake kernels whose headers "compile" in milliseconds, real make,
//! real files, real scripts.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its root has failed")]

mod asking;
mod bounds;
mod cache;
mod installing;
mod side_by_side;

use std::collections::BTreeSet;
use std::fs;

use dkms_engine::act;
use dkms_engine::dkms_tree::BuildCache;
use dkms_engine::dkms_tree::{PendingList, PendingWork};
use dkms_engine::facts::{self, Scope};
use dkms_engine::machine::Machine;
use dkms_engine::machine::Memory;
use dkms_engine::names::{KernelRelease, ModuleId};
use dkms_engine::os::process::{Bond, Confinement};
use dkms_engine::plan::{self, Plan, Request, Verb};
use dkms_engine::report::{Event, Report, Watch};
use rstest::rstest;
use testroot::TestRoot;

const K1: &str = "7.2.12-arch1-1";
const K2: &str = "7.2.13-arch1-1";

/// What was said while a plan was carried out.
#[derive(Default)]
struct Said {
    lines: Vec<String>,
    phases: Vec<String>,
}

impl Watch for Said {
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
struct TestMachine {
    root: TestRoot,
    heard: Said,
    /// How many jobs may run, if not one for each processor.
    jobs: Option<usize>,
    /// Whether programs cannot be confined, as for a user who is not root.
    without_privileges: bool,
}

impl TestMachine {
    fn new() -> Self {
        Self {
            root: TestRoot::new(),
            heard: Said::default(),
            jobs: None,
            without_privileges: false,
        }
    }

    fn with_kernel(release: &str) -> Self {
        let machine = Self::new();
        machine.root.kernel(release).pkgbase("linux").headers();
        machine
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::for_hook(self.root.path());
        machine.tools.depmod = self.root.depmod();
        self.root.make();
        machine.env = machine.env.first_in_path(&self.root.programs());
        if self.without_privileges {
            machine.tools.confinement = Confinement::known(Bond::None);
        }
        if let Some(jobs) = self.jobs {
            machine.settings.set_jobs(jobs);
        }
        // Not this machine's: a test is not to depend on it.
        machine.memory = Memory::at(&self.root.at("proc"), &self.root.at("cgroup"));
        machine
    }

    fn plan(&self, request: &Request) -> Plan {
        let facts = facts::read(&self.machine(), &Scope::default());
        plan::make(request, &facts).unwrap()
    }

    fn run(&mut self, request: &Request) -> Report {
        let machine = self.machine();
        let facts = facts::read(&machine, &Scope::default());
        let plan = plan::make(request, &facts).unwrap();
        act::carry_out(&plan, &facts, &machine, &mut self.heard)
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

fn executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
