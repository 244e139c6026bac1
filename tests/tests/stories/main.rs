//! The stories that alpm-dkms must live through, told with real pacman, kernels, modules and compilers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a story fails by panicking"
)]

mod asked_once;
mod bad_input;
mod boots;
mod bounds;
mod confs;
mod dracut;
mod dracut_layouts;
mod failed_bumps;
mod full_disk;
mod hook_files;
mod image;
mod image_troubles;
mod images;
mod initcpio;
mod interrupted;
mod kernels;
mod kernels_leave;
mod launchers;
mod looks;
mod machines;
mod modules;
mod moves;
mod other_root;
mod power;
mod precise;
mod rebuilds;
mod setting;
mod signing;
mod surroundings;
mod testbed;
mod wide;
