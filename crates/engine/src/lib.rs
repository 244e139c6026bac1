//! Builds kernel modules from source, stores them in the dkms tree and installs them.
//!
//! The engine needs neither pacman nor a terminal. A run has three stages: [`facts::read`] reads
//! the state of the machine, [`plan::make`] decides what to do, and [`act::carry_out`] does it and
//! returns a [`report::Report`].
//!
//! The table lists the engine's Rust modules from the bottom up. A Rust module may import only the
//! ones in the last column of its row, all of which are in earlier rows. Every Rust module may also
//! import `names`, `version` and `failure`, except that `os` must not import `failure`. The
//! interface of a directory is its `mod.rs`. `tests/imports.rs` checks these rules.
//!
//! | Module | Contents | May import |
//! |---|---|---|
//! | `os` | operating system services: files, processes, bash, digests | |
//! | `objects` | kernel objects as files: names, modinfo, stripping, signing, compression | os |
//! | `machine` | the machine that a run works on: trees, kernels, settings, lock | os, objects |
//! | `other_distributions` | support for distributions other than Arch | os, objects, machine |
//! | `conf` | reads and interprets dkms.conf | os, machine |
//! | `signing` | chooses the signing key for each kernel, and creates keys | os, objects, machine, other_distributions |
//! | `dkms_tree` | the files of `/var/lib/dkms`: state, records, pending work, builds | os, objects, machine, conf |
//! | `module_scripts` | runs a module's own scripts | os, machine, conf, dkms_tree |
//! | `lint` | finds mistakes in the source of a module | os, machine, conf, dkms_tree, module_scripts |
//! | `status` | the output of `dkms status` | os, objects, machine, dkms_tree |
//! | `facts` | everything a plan depends on, read once | os, objects, machine, conf, signing, dkms_tree |
//! | `archive` | exports and imports modules as archives and directories | os, machine, conf, dkms_tree, facts |
//! | `plan` | decides what to do, why, and in which order; pure | os, machine, conf, dkms_tree, facts |
//! | `report` | the outcome and the timings of a run | os, plan |
//! | `building` | compiles one module for one kernel | os, objects, machine, conf, signing, dkms_tree, module_scripts, facts, report |
//! | `installing` | installs and uninstalls objects in a kernel's directory | os, objects, machine, conf, signing, dkms_tree |
//! | `verify` | checks that modules are installed as they should be | os, objects, machine, signing, dkms_tree, status, facts, plan, installing |
//! | `explain` | explains the state of a module | machine, dkms_tree, facts, plan, building |
//! | `act` | carries out a plan; the only module that changes the machine | os, objects, machine, conf, signing, dkms_tree, module_scripts, facts, plan, report, building, installing, other_distributions |

pub mod act;
pub mod archive;
mod building;
mod conf;
pub mod dkms_tree;
pub mod explain;
pub mod facts;
pub mod failure;
mod installing;
pub mod lint;
pub mod machine;
mod module_scripts;
pub mod names;
pub mod objects;
pub mod os;
mod other_distributions;
pub mod plan;
pub mod report;
pub mod signing;
pub mod status;
pub mod verify;
pub mod version;

pub use conf::DEPRECATED;
