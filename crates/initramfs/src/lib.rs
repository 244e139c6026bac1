//! Which image holds which modules, and who regenerates it when they change.
//!
//! From the ground up: [`image`] · what each generator knows: [`generators`] · [`pending`], [`snapshot`] · [`decide`] ·
//! [`assess`] · [`regenerate`]; [`mkinitcpio_override`].

pub mod assess;
pub mod decide;
mod find_files;
pub mod generators;
pub mod image;
mod implied_modules;
mod kernel_line;
pub mod mkinitcpio_override;
pub mod pending;
pub mod regenerate;
pub mod snapshot;
#[cfg(test)]
mod test_machine;
