//! The page of results: `docs/benchmarks.md`.

use std::array;
use std::fmt;

use stories::find;

use crate::Wanted;
use crate::machine::{Machines, Side, State};
use crate::measure;
use crate::results::Results;

const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench out=docs/benchmarks.md`, in which real pacman installs real packages in a chroot. Each
measurement begins from a fork of the same machine, on a tmpfs; the sides take turns.

- **ours**: this package. **dkms**: Debian's, driven as Arch's hook does: one module at a time with `--no-depmod`, one depmod
  per kernel at the end.
- **floor**: user and system time of plain `make` for the same modules, under one jobserver with all cores busy, divided by the
  number of cores: what compilers need that every module asks for everything. **floor / dkms** is the part of dkms's time
  that this is; ours asks once what the modules of a kernel have in common, and may come below it by as much.
- **pacman**: the same transaction without any hook for modules. pacman runs in a UTF-8 locale.
- **Full-size kernel headers** are Debian's plus, as on Arch, an empty file in `include/config` for each option: about
  15,000 files.
- From the milliseconds of `dkms status` and of hooks, both sides', is taken what `true` takes, started the same way: `env`,
  `chroot` and `sh` before it are the measurement's.

Times are medians of the wall clock, in seconds unless another unit is given. **round by round**: the least and the greatest
ratio of ours to dkms within one round. The speed of the machine, which is a virtual one, drifts between the two.
";

const EFFORTS: &str = "\
Processor time in seconds, pacman's own included, and the greatest resident memory of our own programs, of all that ran
at the same time.
";

const SIMULATION: &str = "\
40 modules for 6 kernels, with compilers that only sleep (`make simulate`), beside what no order of builds could beat; at
most 1.1 x is to be reached. They sleep the longer the more processors there seem to be, since what the engine does
itself has only those of this machine:

";

/// The page.
pub(crate) fn page(wanted: &Wanted, machines: &mut Machines, results: &Results) -> String {
    let mut times = Table::new([
        "",
        "ours",
        "dkms",
        "ours / dkms",
        "round by round",
        "floor",
        "ours / floor",
        "floor / dkms",
        "pacman",
        "at most",
        "reached",
    ]);
    let mut efforts =
        Table::new(["", "ours", "dkms", "compilers alone", "our programs", "under 24 MiB"]);
    for row in &wanted.rows {
        let medians = results.medians(row.name);
        let reached = match row.goal {
            "" => String::new(),
            _ => yes_or_no((row.reached)(&medians)),
        };
        times.row([
            row.what.into(),
            seconds(medians.ours),
            seconds(medians.dkms),
            ratio(medians.ours, medians.dkms),
            medians.ratios.map(range).unwrap_or_default(),
            seconds(medians.floor),
            ratio(medians.ours, medians.floor),
            ratio(medians.floor, medians.dkms),
            seconds(medians.pacman),
            row.goal.into(),
            reached,
        ]);
        if medians.memory > 0.0 {
            efforts.row([
                row.what.into(),
                seconds(medians.ours_cpu),
                seconds(medians.dkms_cpu),
                seconds(medians.compilers_cpu),
                format!("{:.1} MiB", medians.memory),
                yes_or_no(medians.memory < 24.0),
            ]);
        }
    }
    let machine = described_machine(wanted.rounds, machines);
    let mut page = format!("{INTRODUCTION}\n{machine}\n\n## Times\n\n{times}");
    page.push_str(&format!("\n## Processor time and memory\n\n{EFFORTS}\n{efforts}"));
    if let Some(simulation) = &wanted.simulation {
        page.push_str(&format!("\n## More cores, simulated\n\n{SIMULATION}```\n{simulation}```\n"));
    }
    page
}

/// When, on what machine and with which programs it was measured.
fn described_machine(rounds: usize, machines: &mut Machines) -> String {
    let root = machines.fork(Side::Dkms, State::Kernel);
    let line = |command: &str| root.shell(command).ok().text.trim().to_owned();
    format!(
        "{}, rounds: {rounds}, on {} cores of {} with {} of memory. {}, {}, {}, kernels {} and {}.",
        line("date --utc +%F"),
        measure::cores(),
        line("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1"),
        line("awk '/^MemTotal/ { printf \"%.0f GiB\", $2 / 1024 / 1024 }' /proc/meminfo"),
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

/// A table in Markdown that is also good to read as it is.
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
