//! Finds the images that hold a kernel's modules, and regenerates them when the modules change.
//!
//! | Module | Purpose | Uses |
//! |---|---|---|
//! | `find_files` | finds files below the machine's root | |
//! | `image` | the image files, and what can be read from them | |
//! | `generators` | the generators: their images, configurations and commands | `image` |
//! | [`mkinitcpio_override`] | the override of mkinitcpio's pacman hook | `generators` |
//! | `pending`, `managed_modules` | the changed modules, and those of a kernel | `image` |
//! | `snapshot` | the images before other packages' hooks ran | `generators`, `pending`, `managed_modules` |
//! | `decide`, `implied_modules` | what to do with an image | `image` |
//! | `assess` | what to do with all pending images | all above |
//! | `regenerate`, `kernel_line` | doing it | `assess` |
//! | `maintain` | the interface for hooks and commands | `assess`, `regenerate` |

mod assess;
mod decide;
mod find_files;
mod generators;
mod image;
mod implied_modules;
mod kernel_line;
mod maintain;
mod managed_modules;
pub mod mkinitcpio_override;
mod pending;
mod regenerate;
mod snapshot;
#[cfg(test)]
mod test_machine;

pub use generators::Generator;
pub use maintain::{Maintained, Maintenance, maintain_images};
pub use pending::PendingImages;
pub use snapshot::take_snapshot;
