//! The machines that measurements start from, each created once and forked for every measurement.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use stories::{Root, find};
use walkdir::WalkDir;

use crate::compilers_alone::Work;
use crate::{large_machines, measure};

/// The modules of the benchmark, by the aliases of their packages.
pub(crate) const MODULES: [&str; 12] = [
    "v4l2loopback",
    "acpi-call",
    "bbswitch",
    "ddcci",
    "digimend",
    "lime-forensics",
    "openrazer-driver",
    "tp_smapi",
    "vhba",
    "xone",
    "hid-xpadneo",
    "broadcom-sta",
];

/// The package whose hooks a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// alpm-dkms.
    Ours,
    /// The real dkms, run by hooks like Arch's.
    Dkms,
    /// No hooks for modules, to measure pacman alone.
    PacmanOnly,
}

/// The packages on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// A kernel and its headers.
    Kernel,
    /// A kernel, its headers and the modules.
    Modules,
    /// Two kernels, their headers and the modules.
    TwoKernels,
    /// A kernel with [`large_machines::full_headers`], and the modules.
    FullHeaders,
    /// Generated builds of a hundred modules for ten kernels.
    Generated,
}

/// The machines created so far.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    made: BTreeMap<(Side, State), Root>,
    floors: BTreeMap<Work, Duration>,
}

impl Machines {
    /// Returns a fork of a machine, which may be changed.
    pub(crate) fn fork(&mut self, side: Side, state: State) -> Root {
        if let Some(root) = self.made.get(&(side, state)) {
            return root.fork();
        }
        let root = match state {
            State::Kernel => {
                let root = fresh(side);
                root.install(&["linux-1", "linux-headers-1"].map(find));
                root
            }
            State::Modules => {
                let root = self.fork(side, State::Kernel);
                measure::transaction(&root, &MODULES.map(find));
                root
            }
            State::TwoKernels => {
                let root = self.fork(side, State::Modules);
                measure::transaction(&root, &["linux-lts-1", "linux-lts-headers-1"].map(find));
                root
            }
            State::FullHeaders => {
                let root = self.fork(side, State::Modules);
                large_machines::make_full_headers(&root);
                measure::transaction(&root, &[large_machines::full_headers()]);
                root
            }
            State::Generated => {
                let root = self.fork(side, State::Kernel);
                measure::transaction(&root, &[find("bbswitch")]);
                large_machines::multiply(&root, 100, 10);
                root
            }
        };
        let fork = root.fork();
        self.made.insert((side, state), root);
        fork
    }

    /// Returns the CPU time of the compilers for this work, measured once in each round.
    pub(crate) fn floor(&mut self, work: &Work) -> Duration {
        if let Some(floor) = self.floors.get(work) {
            return *floor;
        }
        let root = self.fork(Side::PacmanOnly, State::TwoKernels);
        let floor = work.compile(&root);
        self.floors.insert(work.clone(), floor);
        floor
    }

    /// Starts a new round, in which the compilers are measured again.
    pub(crate) fn next_round(&mut self) {
        self.floors.clear();
    }
}

/// Creates a machine without kernels.
fn fresh(side: Side) -> Root {
    if side == Side::Ours {
        return Root::with_preflight();
    }
    let root = Root::bare();
    root.install(&[find("dkms")]);
    if side == Side::Dkms {
        copy_files(&root, concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/arch-dkms"));
    }
    root
}

/// Copies the files of a directory into a root.
fn copy_files(root: &Root, directory: &str) {
    let files = WalkDir::new(directory).into_iter().flatten();
    for file in files.filter(|entry| entry.file_type().is_file()) {
        let path = file.path().strip_prefix(Path::new(directory)).expect("a path in the directory");
        let text = fs::read_to_string(file.path()).expect("read a file of the testbed");
        root.write(&path.display().to_string(), &text);
    }
}
