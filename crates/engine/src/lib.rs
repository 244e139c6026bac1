//! What DKMS is: modules built from source for every kernel, kept in the dkms tree and placed in
//! the kernels' own directories. Knows no pacman and no terminal.
//!
//! From the ground up, a file uses only those above it:
//! [`names`], [`trees`] · `run`, `conf`, `kernels`, `state` · `facts` · `plan` · `build`, `place` · `act`, `report`.

pub mod copy;
pub mod digest;
pub mod distribution;
pub mod durable;
pub mod kernels;
pub mod links;
pub mod names;
pub mod object;
pub mod run;
pub mod trees;
pub mod version;
