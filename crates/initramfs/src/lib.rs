//! Finds the initramfs images that contain a kernel's dkms modules, and regenerates an image when
//! its modules change.
//!
//! | Module | Purpose | Uses |
//! |---|---|---|
//! | `find_files` | lists directories | |
//! | `image` | image files and their contents | |
//! | `generators` | the generators: their images, configuration and commands | `image` |
//! | [`mkinitcpio_override`] | the override of mkinitcpio's pacman hook | `generators` |
//! | `image_modules` | the kernel modules in images, for other programs | `generators` |
//! | `image_space` | whether the images of one more kernel fit, for other programs | `generators` |
//! | `pending`, `managed_modules` | changed modules and dkms's modules | `image` |
//! | `mount_table` | which file systems are mounted | |
//! | `needed_modules` | the modules that an image must contain | `generators`, `mount_table` |
//! | `image_faults` | whether the images of a kernel are as they should be, for other programs | `needed_modules`, `obstacle` |
//! | `image_snapshot` | earlier state of one image, with a copy | `image` |
//! | `snapshot` | earlier state of all images | `image_snapshot`, `needed_modules`, `pending`, `managed_modules` |
//! | `leftovers` | temporary files of killed runs beside images | `snapshot` |
//! | `decide` | decides what to do with one image | `image` |
//! | `obstacle` | why an image cannot be written now | `generators`, `mount_table` |
//! | `assess` | decides what to do with all pending images | all above |
//! | `image_report` | the report on a stale image | `assess` |
//! | `regenerate`, `restore`, `kernel_line` | carry out the decisions | `assess` |
//! | `maintain` | the interface for hooks and commands | `assess`, `regenerate`, `leftovers` |

mod assess;
mod decide;
mod find_files;
mod generators;
mod image;
mod image_faults;
mod image_modules;
mod image_report;
mod image_snapshot;
mod image_space;
mod kernel_line;
mod leftovers;
mod maintain;
mod managed_modules;
pub mod mkinitcpio_override;
mod mount_table;
mod needed_modules;
mod obstacle;
mod pending;
mod regenerate;
mod restore;
mod snapshot;
#[cfg(test)]
mod test_machine;

pub use generators::Generator;
pub use image::release_of_kernel_file;
pub use image_faults::{has_images, image_faults};
pub use image_modules::modules_in_images;
pub use image_report::{ImageReport, stale_images};
pub use image_space::lacking_space;
pub use maintain::{
    Maintained, Maintenance, has_pending_images, maintain_images, needs_maintenance,
};
pub use snapshot::{note_existing_images, take_snapshot};
