//! Puts objects into a kernel's directory and takes them out again.

mod built_module;
pub(crate) mod conflicts;
pub(crate) mod depmod;
pub(crate) mod load;
pub(crate) mod location;
pub(crate) mod originals;
pub(crate) mod place;
pub(crate) mod refinish;
pub(crate) mod uninstall;

pub(crate) use built_module::BuiltModule;
