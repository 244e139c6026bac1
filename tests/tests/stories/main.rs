//! The stories that alpm-dkms must live through, told with real pacman, kernels, modules and compilers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a story fails by panicking"
)]

mod hook_files;
mod kernels;
mod modules;
mod testbed;
