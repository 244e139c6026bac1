//! Simulates a run of 40 modules for 6 kernels on a machine with many processors, and measures its
//! duration. Each compiler only sleeps, while make holds a jobserver token for it.
//!
//! `cargo run --release -p dkms-engine --example simulate [JOBS...]` prints one line for each
//! number of jobs (default: 16 and 64). The line contains the ratio of the duration to its lower
//! bound.

#![expect(clippy::print_stdout, reason = "a command-line program")]
#![expect(clippy::unwrap_used, reason = "a program that cannot set up its root has failed")]

use std::time::{Duration, Instant};

use dkms_engine::act;
use dkms_engine::facts::{self, Scope, Subjects};
use dkms_engine::machine::Machine;
use dkms_engine::plan::{self, Request};
use dkms_engine::report::{Event, Watch};
use testroot::TestRoot;

const KERNELS: u32 = 6;
const MODULES: u32 = 40;

/// Returns the time that a compiler sleeps for one file.
///
/// The time grows with `jobs`. Otherwise the work of the engine itself, which runs on a few real
/// processors, would distort the result.
fn one_file(jobs: usize) -> Duration {
    Duration::from_secs_f64(u32::try_from(jobs).map_or(1.0, f64::from) / 16.0)
}

/// An observer that ignores all events.
struct Silence;

impl Watch for Silence {
    fn event(&mut self, _: &Event<'_>) {}
}

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    for jobs in if asked.is_empty() { vec![16, 64] } else { asked } {
        let root = TestRoot::new();
        let least = fill(&root, jobs);
        let mut machine = Machine::for_hook(root.path());
        machine.tools.depmod = root.depmod();
        machine.settings.set_jobs(jobs);
        let facts = facts::read(&machine, &Scope::default());
        let kernels = facts.kernels.keys().cloned().collect();
        let arrived = Subjects { kernels, ..Subjects::default() };
        let (departed, headers) = Default::default();
        let request = Request::Sync { arrived, departed, headers };
        let plan = plan::make(&request, &facts).unwrap();
        let started = Instant::now();
        let report = act::carry_out(&plan, &facts, &machine, &mut Silence);
        let took = started.elapsed().as_secs_f64();
        assert!(report.is_clean(), "{:?} {:?}", report.failures().next(), report.errors);
        let ratio = took / least.as_secs_f64();
        let least = least.as_secs_f64();
        println!("{jobs} jobs: {took:.1} s (lower bound {least:.1} s): {ratio:.2} x");
    }
}

/// Creates the kernels and modules. Returns the lower bound for the duration of all builds.
///
/// A module compiles 1 to 17 files in parallel and then one more. In each group of four modules,
/// the third depends on the second, and the fourth on the third.
fn fill(root: &TestRoot, jobs: usize) -> Duration {
    let one_file = one_file(jobs);
    for number in 0..KERNELS {
        root.kernel(&format!("7.{number}.1-arch1-1")).pkgbase(&format!("linux{number}")).headers();
    }
    let mut files = 0;
    for number in 0..MODULES {
        let name = format!("m{number:02}");
        let many = 1 + number * number % 17;
        files += many + 1;
        let sleep = format!("\t@sleep {}\n", one_file.as_secs_f64());
        let all: String = (0..many).map(|file| format!(" file{file}.o")).collect();
        let mut source = root.source(&name, "1.0").conf_line("MAKE='make -f sleep.mk'").file(
            "sleep.mk",
            &format!(
                "all:{all}\n{sleep}\t@$(MAKE) -C {}/usr/lib/modules/$(kernelver)/build M=$(CURDIR)\n{all}:\n{sleep}",
                root.path().display()
            ),
        );
        for file in 0..many {
            source = source.file(&format!("file{file}.c"), "");
        }
        if number % 4 > 1 {
            source.conf_line(&format!("BUILD_DEPENDS=m{:02}", number - 1));
        }
    }
    let work = one_file * files * KERNELS / u32::try_from(jobs).unwrap();
    // A chain of three modules compiles at least six files in sequence.
    work.max(one_file * 6)
}
