//! Places the objects of modules in a kernel's directory, and removes them.

mod built_module;
mod conflicts;
mod depmod;
mod load;
mod location;
mod originals;
mod place;
mod refinish;
mod rivals;
mod shadowed;
mod uninstall;

pub(crate) use built_module::BuiltModule;
pub(crate) use conflicts::{Choice, Refused, choose};
pub(crate) use depmod::depmod;
pub(crate) use load::{load_for_devices, load_listed};
pub(crate) use location::{default_location, locate_by_conf};
pub(crate) use originals::restore_originals;
pub(crate) use place::place;
pub(crate) use refinish::refinish;
pub(crate) use shadowed::{shadowed_objects, warn_of_shadowed};
pub(crate) use uninstall::{deregister, is_installed, sweep, unbuild, uninstall};
