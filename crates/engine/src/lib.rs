//! What DKMS is: modules built from source for every kernel, kept in the dkms tree and placed in
//! the kernels' own directories. Knows no pacman and no terminal.
//!
//! A run goes through three of the modules: [`facts::read`] reads the machine, [`plan::make`]
//! decides what to do, and [`act::carry_out`] does it and returns a [`report::Report`].
//!
//! From the ground up: each module imports only the ones that its row names, all of which stand
//! above it. Every module may import `names`, `version` and `failure`, which is one level above
//! `os`. The interface of a directory is its `mod.rs`. `tests/imports.rs` checks the sources
//! against this table.
//!
//! | Module | Contents | May import |
//! |---|---|---|
//! | `os` | what any program needs of the operating system | |
//! | `objects` | kernel objects as files: names, modinfo, strip, sign, compress | os |
//! | `machine` | one machine as one run sees it: trees, kernels, settings, lock | os, objects |
//! | `other_distributions` | what only other distributions than Arch have | os, objects, machine |
//! | `conf` | what a dkms.conf says and means | os, machine |
//! | `signing` | which key signs for which kernel, and making it | os, objects, machine, other_distributions |
//! | `dkms_tree` | the files of `/var/lib/dkms`: state, records, pending work, builds | os, objects, machine, conf |
//! | `module_scripts` | the scripts that a module brings | os, machine, conf, dkms_tree |
//! | `status` | what `dkms status` prints | os, objects, machine, dkms_tree |
//! | `facts` | everything that a plan depends on, read once | os, objects, machine, conf, signing, dkms_tree |
//! | `archive` | modules in and out as archives and directories | os, machine, conf, dkms_tree, facts |
//! | `plan` | what to do and why, in which order; pure | os, machine, conf, dkms_tree, facts |
//! | `report` | the outcome of a run, and its timings | os, plan |
//! | `building` | compiles one module for one kernel | os, objects, machine, conf, signing, dkms_tree, module_scripts, facts, report |
//! | `installing` | puts objects into a kernel's directory and takes them out | os, objects, machine, conf, signing, dkms_tree |
//! | `act` | carries a plan out; the one module that changes the machine | os, objects, machine, conf, signing, dkms_tree, module_scripts, facts, plan, report, building, installing, other_distributions |

pub mod act;
pub mod archive;
mod building;
mod conf;
pub mod dkms_tree;
pub mod facts;
pub mod failure;
mod installing;
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
pub mod version;

pub use conf::DEPRECATED;
