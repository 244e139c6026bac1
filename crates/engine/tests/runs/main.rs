//! Whole runs of the engine on small roots: fake kernels whose headers "compile" in milliseconds,
//! real make, real files, real scripts.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its root has failed"
)]

mod build_cache;
mod build_inputs;
mod conf_reads;
mod distributions;
mod fixture;
mod installing;
mod limits;
mod objects;
mod parallel_builds;
mod scripts;
mod signing;
