//! The rows of the table: the measurement, the machine it starts from, and the goal.

use stories::find;

use crate::compilers_alone::Work;
use crate::machine::{MODULES, Machines, Side, State};
use crate::results::{Medians, Results};
use crate::{large_machines, measure};

/// One row of the table.
pub(crate) struct Row {
    /// By this the command line names it.
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    kind: Kind,
    /// What is to be reached, in words; nothing if it is only reported.
    pub goal: &'static str,
    /// Whether it is reached.
    pub reached: fn(&Medians) -> bool,
}

enum Kind {
    /// A transaction of pacman's.
    Transaction {
        /// The machine before.
        from: State,
        /// The packages it installs, by alias.
        brings: &'static [&'static str],
        /// The machine afterwards: all these modules are placed for all these kernels' packages.
        leaves: Work,
        /// What compilers have to do.
        compiles: Work,
    },
    /// A reinstall of the headers of a full-size kernel, with our hooks and without any.
    Headers,
    /// `dkms status`.
    Status(State),
    /// The hook, told about headers and a module that did not change.
    Hook { cold: bool },
}

/// Who is measured in what takes us milliseconds, and how often in each round.
const BOTH: [(Side, usize); 2] = [(Side::Ours, 20), (Side::Dkms, 1)];

/// How often headers are reinstalled in each round.
const REINSTALLS: usize = 5;

/// Where modules and kernels are: on a disk of their own where milliseconds count.
const TREES: [&str; 3] = ["usr/lib/modules", "usr/src", "var/lib/dkms"];

/// The modules after one of them came in a new version.
const NEXT: [&str; 12] = {
    let mut modules = MODULES;
    modules[0] = "v4l2loopback-next";
    modules
};

/// All rows, in the order in which they are measured and printed.
pub(crate) const ROWS: [Row; 10] = [
    Row {
        name: "install",
        what: "install the 12 modules, one kernel",
        kind: Kind::Transaction {
            from: State::Kernel,
            brings: &MODULES,
            leaves: Work { kernels: &["linux-1"], modules: &MODULES },
            compiles: Work { kernels: &["linux-1"], modules: &MODULES },
        },
        goal: "1.15 x floor, 0.65 x dkms",
        reached: |m| m.ours <= 1.15 * m.floor && m.ours <= 0.65 * m.dkms,
    },
    Row {
        name: "bump",
        what: "kernel upgrade, 12 modules",
        kind: Kind::Transaction {
            from: State::Modules,
            brings: &["linux-2", "linux-headers-2"],
            leaves: Work { kernels: &["linux-2"], modules: &MODULES },
            // The same compilations as for its predecessor, which are measured already.
            compiles: Work { kernels: &["linux-1"], modules: &MODULES },
        },
        goal: "1.15 x floor + pacman, 0.55 x dkms",
        reached: |m| m.ours <= 1.15 * m.floor + m.pacman && m.ours <= 0.55 * m.dkms,
    },
    Row {
        name: "bump-two",
        what: "upgrade of two kernels, 12 modules",
        kind: Kind::Transaction {
            from: State::TwoKernels,
            brings: &["linux-2", "linux-headers-2", "linux-lts-2", "linux-lts-headers-2"],
            leaves: Work { kernels: &["linux-2", "linux-lts-2"], modules: &MODULES },
            compiles: Work { kernels: &["linux-1", "linux-lts-1"], modules: &MODULES },
        },
        goal: "1.15 x floor + pacman, 0.55 x dkms",
        reached: |m| m.ours <= 1.15 * m.floor + m.pacman && m.ours <= 0.55 * m.dkms,
    },
    Row {
        name: "module",
        what: "upgrade of one module, two kernels",
        kind: Kind::Transaction {
            from: State::TwoKernels,
            brings: &["v4l2loopback-next"],
            leaves: Work { kernels: &["linux-1", "linux-lts-1"], modules: &NEXT },
            compiles: Work {
                kernels: &["linux-1", "linux-lts-1"],
                modules: &["v4l2loopback-next"],
            },
        },
        goal: "",
        reached: |_| true,
    },
    Row {
        name: "reinstall",
        what: "reinstall of unchanged headers, 12 modules",
        kind: Kind::Transaction {
            from: State::Modules,
            brings: &["linux-headers-1"],
            leaves: Work { kernels: &["linux-1"], modules: &MODULES },
            compiles: Work::NONE,
        },
        goal: "0.02 x dkms",
        reached: |m| m.ours <= 0.02 * m.dkms,
    },
    Row {
        name: "headers",
        what: "reinstall of a full-size kernel's headers",
        kind: Kind::Headers,
        goal: "pacman + 0.3 s",
        reached: |m| m.ours <= m.pacman + 0.3,
    },
    Row {
        name: "status",
        what: "dkms status, 12 modules x 2 kernels",
        kind: Kind::Status(State::TwoKernels),
        goal: "0.1 s, dkms / 200",
        reached: |m| m.ours < 0.1 && m.ours * 200.0 <= m.dkms,
    },
    Row {
        name: "status-many",
        what: "dkms status, 100 modules x 10 kernels, made up",
        kind: Kind::Status(State::MadeUp),
        goal: "0.1 s, dkms / 200",
        reached: |m| m.ours < 0.1 && m.ours * 200.0 <= m.dkms,
    },
    Row {
        name: "hook",
        what: "hook with nothing to do, 12 modules x 2 kernels",
        kind: Kind::Hook { cold: false },
        goal: "25 ms",
        reached: |m| m.ours < 0.025,
    },
    Row {
        name: "hook-cold",
        what: "the same with cold caches",
        kind: Kind::Hook { cold: true },
        goal: "",
        reached: |_| true,
    },
];

impl Row {
    /// Measures these sides once, in turn.
    pub(crate) fn measure(&self, sides: &[Side], machines: &mut Machines, results: &mut Results) {
        match &self.kind {
            Kind::Transaction { from, brings, leaves, compiles } => {
                let packages: Vec<_> = brings.iter().map(|alias| find(alias)).collect();
                for &side in sides {
                    let root = machines.fork(side, *from);
                    results.note(self.name, side, measure::transaction(&root, &packages));
                    if side != Side::Nobody {
                        leaves.assert_placed(&root);
                    }
                }
                if sides.contains(&Side::Nobody) && *compiles != Work::NONE {
                    results.note_floor(self.name, machines.floor(compiles));
                }
            }
            Kind::Headers => {
                let sides = [Side::Ours, Side::Nobody].into_iter().filter(|it| sides.contains(it));
                let forks: Vec<_> =
                    sides.map(|it| (it, machines.fork(it, State::FullHeaders))).collect();
                let headers = [large_machines::full_headers()];
                for _ in 0..REINSTALLS {
                    for (side, root) in &forks {
                        results.note(self.name, *side, measure::transaction(root, &headers));
                    }
                }
            }
            Kind::Status(state) => {
                for (side, times) in BOTH.into_iter().filter(|(side, _)| sides.contains(side)) {
                    let root = machines.fork(side, *state);
                    root.move_to_disk(&TREES);
                    let starting = measure::starting(&root);
                    for _ in 0..times {
                        results.note(self.name, side, measure::status(&root).without(starting));
                    }
                }
            }
            Kind::Hook { cold } => {
                for (side, times) in BOTH.into_iter().filter(|(side, _)| sides.contains(side)) {
                    let root = machines.fork(side, State::TwoKernels);
                    root.move_to_disk(&TREES);
                    let unchanged = [find("linux-headers-1"), find(MODULES[0])];
                    // pacman has written them anew, and the hook has seen that they are the same.
                    measure::transaction(&root, &unchanged);
                    measure::hook(&root, side, &unchanged);
                    let starting = measure::starting(&root);
                    for _ in 0..if *cold { 1 } else { times } {
                        if *cold {
                            measure::drop_caches();
                        }
                        let figure = measure::hook(&root, side, &unchanged);
                        results.note(self.name, side, figure.without(starting));
                    }
                }
            }
        }
    }
}
