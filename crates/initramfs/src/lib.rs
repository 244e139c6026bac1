//! Which image holds which modules, and who regenerates it when they change.
//!
//! From the ground up: [`kmod_name`], [`contents`], [`image`] · what each generator knows: [`generator`] · [`owed`],
//! [`note`] · [`decide`] · [`accounts`] · [`settle`]; [`precise`].

pub mod accounts;
mod booster;
pub mod call;
pub mod contents;
pub mod decide;
mod dracut;
mod files;
pub mod generator;
pub mod image;
mod kernel_file;
mod kernel_install;
pub mod kmod_name;
#[cfg(test)]
mod machine;
mod mkinitcpio;
mod needs;
pub mod note;
pub mod owed;
mod pacman_hook;
pub mod precise;
pub mod settle;
mod shell;
mod signed;
mod verdict;
