//! The rows of the table: measurements, the machines they start from, and their goals.

use stories::find;

use crate::compilers_alone::Work;
use crate::machine::{MODULES, Machines, Side, State};
use crate::results::{Medians, Results};
use crate::{large_machines, measure};

/// One row of the table.
pub(crate) struct Row {
    /// The name on the command line.
    pub name: &'static str,
    /// The first cell of the row.
    pub title: &'static str,
    kind: Kind,
    /// The goal in words, or empty.
    pub goal: &'static str,
    /// Returns true if the goal is reached.
    pub is_reached: fn(&Medians) -> bool,
}

enum Kind {
    /// A pacman transaction.
    Transaction {
        /// The machine before the transaction.
        from: State,
        /// The aliases of the packages to install.
        installs: &'static [&'static str],
        /// The builds that are installed after the transaction.
        expects: Work,
        /// The builds whose compilations are run alone, for comparison.
        compiles: Work,
        /// Whether the trees are on the disk of the checkout instead of a tmpfs.
        on_disk: bool,
        preflight: Preflight,
    },
    /// A transaction that installs these modules again after their removal, so that all builds are
    /// restored from the cache.
    Restoration(&'static [&'static str]),
    /// A transaction that installs a kernel without its headers, aborted by the preflight. For
    /// comparison with pacman alone, another hook aborts it and the package is unpacked once.
    Abort,
    /// A reinstallation of full-size headers, with our hooks and without hooks.
    Headers,
    /// `dkms status`.
    Status(State),
    /// `dkms verify` on a machine without faults.
    Verify(State),
    /// The hook with unchanged headers and an unchanged module as targets.
    Hook { cold: bool },
}

/// The preflight of alpm-dkms in a transaction. Rows other than `On` are not measured for dkms.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preflight {
    /// The preflight runs, as it does by default.
    On,
    /// Its hook is masked.
    Off,
    /// `dkms preflight` has already test-built the modules for these packages.
    Done,
}

/// The sides of rows that alpm-dkms completes in milliseconds, with the number of measurements in
/// each round.
const BOTH: [(Side, usize); 2] = [(Side::Ours, 20), (Side::Dkms, 1)];

/// The number of restorations in each round.
const RESTORATIONS: usize = 5;

/// The number of aborted transactions in each round.
const ABORTS: usize = 10;

/// The number of runs of `dkms verify` in each round.
const VERIFICATIONS: usize = 20;

/// The number of reinstallations of headers in each round.
const REINSTALLS: usize = 5;

/// The directories that are moved to the disk for rows in which milliseconds matter.
const TREES: [&str; 3] = ["usr/lib/modules", "usr/src", "var/lib/dkms"];

/// The modules after one of them has been upgraded.
const NEXT: [&str; 12] = {
    let mut modules = MODULES;
    modules[0] = "v4l2loopback-next";
    modules
};

/// All rows, in the order in which they are measured and printed.
pub(crate) const ROWS: [Row; 17] = [
    Row {
        name: "install",
        title: "install the 12 modules, one kernel",
        kind: Kind::Transaction {
            from: State::Kernel,
            installs: &MODULES,
            expects: Work { kernels: &["linux-1"], modules: &MODULES },
            compiles: Work { kernels: &["linux-1"], modules: &MODULES },
            on_disk: false,
            preflight: Preflight::On,
        },
        goal: "1.15 x floor, 0.65 x dkms",
        is_reached: |m| m.ours <= 1.15 * m.floor && m.ours <= 0.65 * m.dkms,
    },
    Row {
        name: "bump",
        title: "upgrade the kernel, 12 modules",
        kind: upgrade(Preflight::On),
        goal: "1.15 x floor + pacman, 0.55 x dkms",
        is_reached: |m| m.ours <= 1.15 * m.floor + m.pacman && m.ours <= 0.55 * m.dkms,
    },
    Row {
        name: "bump-without",
        title: "the same without the preflight",
        kind: upgrade(Preflight::Off),
        goal: "the upgrade takes at most 1.05 x",
        is_reached: |m| m.upgrade <= 1.05 * m.ours,
    },
    Row {
        name: "bump-tried",
        title: "the same after `dkms preflight`",
        kind: upgrade(Preflight::Done),
        goal: "pacman + 3 s",
        is_reached: |m| m.ours <= m.pacman + 3.0,
    },
    Row {
        name: "bump-two",
        title: "upgrade two kernels, 12 modules",
        kind: Kind::Transaction {
            from: State::TwoKernels,
            installs: &["linux-2", "linux-headers-2", "linux-lts-2", "linux-lts-headers-2"],
            expects: Work { kernels: &["linux-2", "linux-lts-2"], modules: &MODULES },
            compiles: Work { kernels: &["linux-1", "linux-lts-1"], modules: &MODULES },
            on_disk: false,
            preflight: Preflight::On,
        },
        goal: "1.15 x floor + pacman, 0.55 x dkms",
        is_reached: |m| m.ours <= 1.15 * m.floor + m.pacman && m.ours <= 0.55 * m.dkms,
    },
    Row {
        name: "module",
        title: "upgrade one module, two kernels",
        kind: Kind::Transaction {
            from: State::TwoKernels,
            installs: &["v4l2loopback-next"],
            expects: Work { kernels: &["linux-1", "linux-lts-1"], modules: &NEXT },
            compiles: Work {
                kernels: &["linux-1", "linux-lts-1"],
                modules: &["v4l2loopback-next"],
            },
            on_disk: false,
            preflight: Preflight::On,
        },
        goal: "",
        is_reached: |_| true,
    },
    Row {
        name: "reinstall",
        title: "reinstall unchanged headers, 12 modules",
        kind: Kind::Transaction {
            from: State::Modules,
            installs: &["linux-headers-1"],
            expects: Work { kernels: &["linux-1"], modules: &MODULES },
            compiles: Work::NONE,
            on_disk: false,
            preflight: Preflight::On,
        },
        goal: "0.02 x dkms",
        is_reached: |m| m.ours <= 0.02 * m.dkms,
    },
    Row {
        name: "install-disk",
        title: "install the 12 modules, trees on the disk",
        kind: Kind::Transaction {
            from: State::Kernel,
            installs: &MODULES,
            expects: Work { kernels: &["linux-1"], modules: &MODULES },
            compiles: Work { kernels: &["linux-1"], modules: &MODULES },
            on_disk: true,
            preflight: Preflight::On,
        },
        goal: "1.15 x floor, 0.65 x dkms",
        is_reached: |m| m.ours <= 1.15 * m.floor && m.ours <= 0.65 * m.dkms,
    },
    Row {
        name: "restore-one",
        title: "install one module again, trees on the disk, no preflight",
        kind: Kind::Restoration(&["bbswitch"]),
        goal: "",
        is_reached: |_| true,
    },
    Row {
        name: "restore",
        title: "install the 12 modules again, trees on the disk, no preflight",
        kind: Kind::Restoration(&MODULES),
        goal: "20 ms per further module",
        is_reached: |m| m.ours - m.pacman <= m.restored_one + 11.0 * 0.020,
    },
    Row {
        name: "headers",
        title: "reinstall full-size kernel headers",
        kind: Kind::Headers,
        goal: "pacman + 0.3 s",
        is_reached: |m| m.ours <= m.pacman + 0.3,
    },
    Row {
        name: "abort",
        title: "abort an upgrade to a kernel without headers, 12 modules",
        kind: Kind::Abort,
        goal: "pacman + unpacking + 50 ms",
        is_reached: |m| m.ours <= m.pacman + 0.05,
    },
    Row {
        name: "status",
        title: "dkms status, 12 modules x 2 kernels",
        kind: Kind::Status(State::TwoKernels),
        goal: "0.1 s, dkms / 200",
        is_reached: |m| m.ours < 0.1 && m.ours * 200.0 <= m.dkms,
    },
    Row {
        name: "status-many",
        title: "dkms status, 100 modules x 10 kernels (generated)",
        kind: Kind::Status(State::Generated),
        goal: "0.1 s, dkms / 200",
        is_reached: |m| m.ours < 0.1 && m.ours * 200.0 <= m.dkms,
    },
    Row {
        name: "verify",
        title: "dkms verify, 12 modules x 2 kernels",
        kind: Kind::Verify(State::TwoKernels),
        goal: "0.1 s",
        is_reached: |m| m.ours < 0.1,
    },
    Row {
        name: "hook",
        title: "hook with nothing to do, 12 modules x 2 kernels",
        kind: Kind::Hook { cold: false },
        goal: "10 ms",
        is_reached: |m| m.ours < 0.010,
    },
    Row {
        name: "hook-cold",
        title: "the same hook, cold caches",
        kind: Kind::Hook { cold: true },
        goal: "",
        is_reached: |_| true,
    },
];

/// Returns the kind of row for a kernel upgrade with 12 modules.
const fn upgrade(preflight: Preflight) -> Kind {
    Kind::Transaction {
        from: State::Modules,
        installs: &["linux-2", "linux-headers-2"],
        expects: Work { kernels: &["linux-2"], modules: &MODULES },
        // These equal the compilations for the old kernel, which are already measured.
        compiles: match preflight {
            Preflight::On => Work { kernels: &["linux-1"], modules: &MODULES },
            Preflight::Off | Preflight::Done => Work::NONE,
        },
        on_disk: false,
        preflight,
    }
}

impl Row {
    /// Measures the row once, on these sides in turn.
    pub(crate) fn measure(&self, sides: &[Side], machines: &mut Machines, results: &mut Results) {
        match &self.kind {
            Kind::Transaction { from, installs, expects, compiles, on_disk, preflight } => {
                let packages: Vec<_> = installs.iter().map(|alias| find(alias)).collect();
                let is_measured = |side: Side| *preflight == Preflight::On || side != Side::Dkms;
                for side in sides.iter().copied().filter(|side| is_measured(*side)) {
                    let root = machines.fork(side, *from);
                    match preflight {
                        _ if side != Side::Ours => {}
                        Preflight::On => {}
                        Preflight::Off => root.mask_preflight(),
                        Preflight::Done => {
                            let files = packages.iter().map(|package| package.file.as_str());
                            root.dkms(&["preflight"].into_iter().chain(files).collect::<Vec<_>>())
                                .ok();
                        }
                    }
                    if *on_disk {
                        root.move_to_disk(&TREES);
                        root.run("sync", &[]).ok();
                    }
                    results.note(self.name, side, measure::transaction(&root, &packages));
                    if side != Side::PacmanOnly {
                        expects.assert_placed(&root);
                    }
                }
                if sides.contains(&Side::PacmanOnly) && *compiles != Work::NONE {
                    results.note_floor(self.name, machines.floor(compiles));
                }
            }
            Kind::Restoration(modules) => {
                let packages: Vec<_> = modules.iter().map(|alias| find(alias)).collect();
                let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
                for side in sides.iter().copied().filter(|side| *side != Side::Dkms) {
                    let root = machines.fork(side, State::Modules);
                    root.mask_preflight();
                    root.move_to_disk(&TREES);
                    let restore = || {
                        root.remove(&names);
                        root.run("sync", &[]).ok();
                        measure::transaction(&root, &packages)
                    };
                    // Let the hook hash the moved headers first.
                    restore();
                    for _ in 0..RESTORATIONS {
                        results.note(self.name, side, restore());
                    }
                    if side == Side::Ours {
                        Work { kernels: &["linux-1"], modules }.assert_placed(&root);
                    }
                }
            }
            Kind::Abort => {
                for side in [Side::Ours, Side::PacmanOnly] {
                    let root = machines.fork(side, State::Modules);
                    for _ in 0..ABORTS {
                        let figure = measure::abort(&root, side, &find("linux-2"));
                        results.note(self.name, side, figure);
                    }
                }
            }
            Kind::Headers => {
                let sides =
                    [Side::Ours, Side::PacmanOnly].into_iter().filter(|it| sides.contains(it));
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
                    let startup = measure::startup_time(&root);
                    for _ in 0..times {
                        let figure = measure::command(&root, "dkms status");
                        results.note(self.name, side, figure.without(startup));
                    }
                }
            }
            Kind::Verify(state) => {
                let root = machines.fork(Side::Ours, *state);
                root.move_to_disk(&TREES);
                let startup = measure::startup_time(&root);
                for _ in 0..VERIFICATIONS {
                    let figure = measure::command(&root, "dkms verify");
                    results.note(self.name, Side::Ours, figure.without(startup));
                }
            }
            Kind::Hook { cold } => {
                for (side, times) in BOTH.into_iter().filter(|(side, _)| sides.contains(side)) {
                    let root = machines.fork(side, State::TwoKernels);
                    root.move_to_disk(&TREES);
                    let unchanged = [find("linux-headers-1"), find(MODULES[0])];
                    // Reinstall both first, and let the hook hash the rewritten files.
                    measure::transaction(&root, &unchanged);
                    measure::hook(&root, side, &unchanged);
                    let startup = measure::startup_time(&root);
                    for _ in 0..if *cold { 1 } else { times } {
                        if *cold {
                            measure::drop_caches();
                        }
                        let figure = measure::hook(&root, side, &unchanged);
                        results.note(self.name, side, figure.without(startup));
                    }
                }
            }
        }
    }
}
