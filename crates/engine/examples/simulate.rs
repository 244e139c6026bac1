//! Times a run of 40 modules for 6 kernels on a machine of many processors, which it has not: each
//! compiler only sleeps, and make holds a token of the jobserver for it meanwhile.
//!
//! `cargo run --release -p dkms-engine --example simulate [JOBS...]` prints a line for each number of
//! jobs (16 and 64 if none is given) with the ratio to what no order of builds could beat.

#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(clippy::unwrap_used, reason = "a program that cannot set up its root has failed")]

use std::time::{Duration, Instant};

use dkms_engine::act;
use dkms_engine::facts::{self, Scope};
use dkms_engine::machine::Machine;
use dkms_engine::plan::{self, Request};
use dkms_engine::report::{Event, Watch};
use testroot::TestRoot;

const KERNELS: u32 = 6;
const MODULES: u32 = 40;

/// How long a compiler sleeps for one file on a machine of so many processors. What the engine does
/// itself is done by the few there are, so on a larger machine it has to be given more time.
fn one_file(jobs: usize) -> Duration {
    Duration::from_secs_f64(u32::try_from(jobs).map_or(1.0, f64::from) / 16.0)
}

/// Nobody listens.
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
        let request = Request::Sync { sources: Default::default(), kernels };
        let plan = plan::make(&request, &facts).unwrap();
        let started = Instant::now();
        let report = act::carry_out(&plan, &facts, &machine, &mut Silence);
        let took = started.elapsed().as_secs_f64();
        assert!(report.is_clean(), "{:?} {:?}", report.failures().next(), report.trouble);
        let ratio = took / least.as_secs_f64();
        let least = least.as_secs_f64();
        println!("{jobs} jobs: {took:.1} s, where {least:.1} s is the least: {ratio:.2} x");
    }
}

/// Makes the kernels and the modules; answers how long their builds take at least.
///
/// A module has between 1 and 16 files to compile, in any order, and then one more. Every fourth
/// builds upon the one before it, and that upon another one.
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
    // Of the three in a chain each needs two files one after the other.
    work.max(one_file * 6)
}
