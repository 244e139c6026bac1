//! What DKMS is: modules built from source for every kernel, kept in the dkms tree and placed in
//! the kernels' own directories. Knows no pacman and no terminal.
//!
//! From the ground up, a file uses only those before it:
//! [`names`], [`trees`] · [`durable`], [`run`], [`conf`], [`kernels`], [`digest`], [`object`], [`memory`] · [`record`],
//! [`debts`], [`state`] · [`facts`], [`survey`] · [`plan`] · `build`, `place`, `remove` · `schedule`, `crew`,
//! [`act`], [`report`].

pub mod act;
mod afterwards;
pub mod archive;
pub mod asked;
mod build;
pub mod cache;
mod compile_once;
mod compilers;
pub mod conf;
mod confs;
pub mod copy;
mod crew;
pub mod debts;
pub mod diagnose;
pub mod digest;
pub mod distribution;
pub mod durable;
pub mod facts;
pub mod failure;
pub mod finish;
pub mod import;
mod index;
mod intake;
pub mod kernels;
mod launcher;
pub mod links;
pub mod lock;
pub mod make_log;
pub mod memory;
pub mod names;
pub mod object;
mod page;
mod place;
pub mod plan;
mod programs;
mod publish;
pub mod record;
mod refinish;
mod remove;
pub mod report;
pub mod run;
mod running;
mod sanity;
mod schedule;
mod scripts;
pub mod settings;
mod settle;
mod side_by_side;
pub mod sign;
pub mod site;
pub mod state;
pub mod status;
pub mod survey;
mod timings;
pub mod trees;
pub mod version;
mod weak;
