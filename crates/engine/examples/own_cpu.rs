//! Measures own CPU per build.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
use dkms_engine::act;
use dkms_engine::facts::{self, Scope};
use dkms_engine::machine::Machine;
use dkms_engine::plan::{self, Request};
use dkms_engine::report::{Event, Watch};
use testroot::TestRoot;
struct Silence;
impl Watch for Silence {
    fn event(&mut self, _: &Event<'_>) {}
}
fn ticks() -> [u64; 2] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let n = |i: usize| f[i].parse::<u64>().unwrap();
    [n(11) + n(12), n(13) + n(14)]
}
fn main() {
    let root = TestRoot::new();
    for number in 0..4 {
        root.kernel(&format!("7.{number}.1-arch1-1")).pkgbase(&format!("linux{number}")).headers();
    }
    for number in 0..80 {
        let name = format!("m{number:02}");
        root.source(&name, "1.0").conf_line("PRE_BUILD=pre.sh").conf_line(&format!("MAKE='cp object.$kernelver {name}.ko'"));
        root.executable(format!("usr/src/{name}-1.0/pre.sh"), "#!/bin/sh\n:\n");
        for number in 0..4 {
            let release = format!("7.{number}.1-arch1-1");
            root.write(format!("usr/src/{name}-1.0/object.{release}"), testroot::kernel_object(&release, &name, &[]));
        }
    }
    let mut machine = Machine::for_hook(root.path());
    machine.tools.depmod = root.depmod();
    let facts = facts::read(&machine, &Scope::default());
    let kernels = facts.kernels.keys().cloned().collect();
    let request = Request::Sync { sources: Default::default(), kernels, headers: Default::default() };
    let plan = plan::make(&request, &facts).unwrap();
    let before = ticks();
    let started = std::time::Instant::now();
    let report = act::carry_out(&plan, &facts, &machine, &mut Silence);
    let after = ticks();
    let wall = started.elapsed();
    println!("clean {} own {:.2} ms children {:.2} ms per build, wall {:.2}", report.is_clean(),
        (after[0] - before[0]) as f64 * 10.0 / 320.0, (after[1] - before[1]) as f64 * 10.0 / 320.0, wall.as_secs_f64());
    if let Some(f) = report.failures().next() { println!("{f:?}"); }
}
