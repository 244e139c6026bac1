//! Stories: tests with real pacman, kernels, modules and compilers. `tests/README.md` lists them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a story fails by panicking"
)]

mod alarm;
mod bad_input;
mod boots;
mod compile_once;
mod confs;
mod dracut;
mod dracut_layouts;
mod during_transactions;
mod environment;
mod explain;
mod explain_states;
mod failed_upgrades;
mod failing_calls;
mod fixture;
mod full_disk;
mod hook_files;
mod image_failures;
mod image_fixture;
mod image_interruptions;
mod image_judgement;
mod image_makers;
mod image_places;
mod images;
mod kernel_removal;
mod kernels;
mod killed_hooks;
mod killed_pacman;
mod killed_unpacking;
mod launchers;
mod limits;
mod lint;
mod migration;
mod mkinitcpio;
mod modules;
mod notices;
mod other_root;
mod output;
mod packaging;
mod parallel_builds;
mod power_cut;
mod prebuilt;
mod precise_images;
mod preflight;
mod preflight_aborts;
mod preflight_command;
mod preflight_fixture;
mod preflight_interruptions;
mod preflight_safety;
mod rebuilds;
mod rollbacks;
mod root_copies;
mod signing;
mod systemd_boot;
mod testbed;
mod verify;
