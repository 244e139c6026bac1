//! Puts objects into a kernel's directory and takes them out again.

pub(crate) mod conflicts;
pub(crate) mod depmod;
pub(crate) mod load;
pub(crate) mod place;
pub(crate) mod refinish;
pub(crate) mod uninstall;
