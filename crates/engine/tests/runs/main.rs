//! Tests of complete runs of the engine, each in a small test root.
//!
//! make, the files and the scripts are real. The kernels are fake: their headers "compile" a module
//! in milliseconds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test, as it should")]

mod attempts;
mod blame;
mod build_cache;
mod build_inputs;
mod cancelled;
mod conf_reads;
mod distributions;
mod explain;
mod failures;
mod fixture;
mod foreign_sources;
mod groups;
mod in_place;
mod installing;
mod inventory;
mod journals;
mod leftovers;
mod limits;
mod loading;
mod objects;
mod own_mounts;
mod parallel_builds;
mod pending_images;
mod rollbacks;
mod script_changes;
mod scripts;
mod side_by_side;
mod signing;
mod signing_pins;
mod source_names;
mod successors;
mod sweeping;
mod trials;
