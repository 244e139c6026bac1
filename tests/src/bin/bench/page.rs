//! Writes the page of results, `docs/benchmarks.md`.

use std::array;
use std::fmt;

use stories::find;

use crate::Options;
use crate::machine::{Machines, Side, State};
use crate::measure;
use crate::results::Results;

const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench out=docs/benchmarks.md`. Real pacman installs real packages in a chroot. Each measurement starts from
a fork of the same machine on a tmpfs, and alpm-dkms and dkms take turns. With trees on the disk, the directories of
kernels, sources and dkms are on the file system of the checkout.

- **dkms** is Debian's dkms, driven as Arch's hook does: one module at a time with `--no-depmod`, and one depmod per kernel
  at the end.
- **floor** is the CPU time (user and system) of plain `make` for the same modules, under one jobserver with all cores busy,
  divided by the number of cores. In it, every module repeats the compiler probes. alpm-dkms runs them once per kernel, so
  it may be faster than the floor.
- **pacman** is the same transaction without hooks for modules. pacman runs in a UTF-8 locale. In the row about an abort,
  it includes unpacking the package.
- **Full-size kernel headers** are Debian's headers plus one empty file in `include/config` for each option, as on Arch:
  about 15,000 files.
- **Installing modules again** restores their builds from the cache. The goal compares 12 modules with one, both without
  the time of pacman.
- The times of `dkms status`, `dkms verify` and of hooks exclude the time to start `env`, `chroot` and `sh`, which is measured with `true`.

Times are medians of wall-clock time, in seconds unless another unit is given. **round by round** is the least and the
greatest ratio of alpm-dkms to dkms within one round. The machine is virtual, and its speed drifts between rounds.
";

const EFFORTS: &str = "\
CPU time in seconds, including that of pacman, and the peak resident memory of alpm-dkms's own programs, summed over those
that run at the same time.
";

const SIMULATION: &str = "\
40 modules for 6 kernels, with compilers that only sleep (`make simulate`), compared with the least time that any order of
builds needs. The goal is at most 1.1 x. More simulated processors sleep longer, because the engine itself has only the
processors of the real machine:

";

/// Returns the page.
pub(crate) fn page(options: &Options, machines: &mut Machines, results: &Results) -> String {
    let mut times = Table::new([
        "",
        "alpm-dkms",
        "dkms",
        "alpm-dkms / dkms",
        "round by round",
        "floor",
        "alpm-dkms / floor",
        "floor / dkms",
        "pacman",
        "goal",
        "met",
    ]);
    let mut efforts =
        Table::new(["", "alpm-dkms", "dkms", "compilers alone", "memory", "under 24 MiB"]);
    for row in &options.rows {
        let medians = results.medians(row.name);
        let is_reached = match row.goal {
            "" => String::new(),
            _ => yes_or_no((row.is_reached)(&medians)),
        };
        times.row([
            row.title.into(),
            seconds(medians.ours),
            seconds(medians.dkms),
            ratio(medians.ours, medians.dkms),
            medians.ratios.map(range).unwrap_or_default(),
            seconds(medians.floor),
            ratio(medians.ours, medians.floor),
            ratio(medians.floor, medians.dkms),
            seconds(medians.pacman),
            row.goal.into(),
            is_reached,
        ]);
        if medians.memory > 0.0 {
            efforts.row([
                row.title.into(),
                seconds(medians.ours_cpu),
                seconds(medians.dkms_cpu),
                seconds(medians.compilers_cpu),
                format!("{:.1} MiB", medians.memory),
                yes_or_no(medians.memory < 24.0),
            ]);
        }
    }
    let machine = described_machine(options.rounds, machines);
    let mut page = format!("{INTRODUCTION}\n{machine}\n\n## Times\n\n{times}");
    page.push_str(&format!("\n## CPU time and memory\n\n{EFFORTS}\n{efforts}"));
    if let Some(simulation) = &options.simulation {
        page.push_str(&format!(
            "\n## Simulation of more cores\n\n{SIMULATION}```\n{simulation}```\n"
        ));
    }
    page
}

/// Returns the date, the machine and the versions of the programs.
fn described_machine(rounds: usize, machines: &mut Machines) -> String {
    let root = machines.fork(Side::Dkms, State::Kernel);
    root.move_to_disk(&["usr/src"]);
    let line = |command: &str| root.shell(command).ok().text.trim().to_owned();
    format!(
        "{}, rounds: {rounds}, on {} cores of {} with {} of memory. The disk is {}. {}, {}, {}, \
         kernels {} and {}.",
        line("date --utc +%F"),
        measure::cores(),
        line("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1"),
        line("awk '/^MemTotal/ { printf \"%.0f GiB\", $2 / 1024 / 1024 }' /proc/meminfo"),
        line("findmnt -no FSTYPE -T /usr/src"),
        line("gcc --version | head -n1"),
        line("dkms --version"),
        line("pacman --version | grep -o 'Pacman v[0-9.]*'"),
        find("linux-1").release(),
        find("linux-lts-1").release(),
    )
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.into()
}

fn seconds(value: f64) -> String {
    match value {
        0.0 => String::new(),
        value if value < 0.1 => format!("{:.1} ms", value * 1000.0),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

fn ratio(value: f64, of: f64) -> String {
    match value / of {
        ratio if !ratio.is_finite() || ratio == 0.0 => String::new(),
        ratio if ratio < 0.1 => format!("{ratio:.4}"),
        ratio => format!("{ratio:.3}"),
    }
}

fn range((least, most): (f64, f64)) -> String {
    let (least, most) = (ratio(least, 1.0), ratio(most, 1.0));
    if least == most { least } else { format!("{least} to {most}") }
}

/// A Markdown table with aligned columns.
struct Table<const COLUMNS: usize>(Vec<[String; COLUMNS]>);

impl<const COLUMNS: usize> Table<COLUMNS> {
    fn new(head: [&str; COLUMNS]) -> Self {
        Self(vec![head.map(str::to_owned)])
    }

    fn row(&mut self, row: [String; COLUMNS]) {
        self.0.push(row);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: [usize; COLUMNS] = array::from_fn(|column| {
            self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        });
        for (number, row) in self.0.iter().enumerate() {
            for (cell, width) in row.iter().zip(widths) {
                write!(out, "| {cell:width$} ")?;
            }
            writeln!(out, "|")?;
            if number == 0 {
                widths.iter().try_for_each(|width| write!(out, "|{:-<1$}", "", width + 2))?;
                writeln!(out, "|")?;
            }
        }
        Ok(())
    }
}
