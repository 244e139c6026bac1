//! Chooses the directories in which a module's objects are placed.

use std::path::PathBuf;

use crate::conf::{Conf, Values};
use crate::dkms_tree::BuiltObject;
use crate::machine::{Kernel, Machine};
use crate::names::ModuleId;
use crate::objects::ObjectName;

/// Returns the directory in which objects are placed by default, relative to the kernel's
/// directory.
pub(crate) fn default_location(machine: &Machine) -> PathBuf {
    let placement = machine.placement().ok();
    placement
        .and_then(|placement| placement.directory("/updates/dkms").ok())
        .unwrap_or_else(|| PathBuf::from("updates/dkms"))
}

/// Sets the location of each object.
///
/// The location is the directory that the distribution prescribes or, if the distribution leaves
/// the choice to dkms.conf, the directory in `values`. Keeps the old locations if `values` are
/// invalid.
pub(crate) fn locate_by_conf(
    machine: &Machine,
    id: &ModuleId,
    kernel: &Kernel,
    values: &Values,
    objects: &mut [BuiltObject],
) {
    let file = machine.trees.source_link(id).join("dkms.conf");
    let conf = Conf::from_values(values, &file, &kernel.release);
    let (Ok(placement), Ok(conf)) = (machine.placement(), conf) else { return };
    for object in objects {
        let Some(name) = ObjectName::parse(&object.name) else { continue };
        let record = conf.records.iter().find(|record| record.dest_name == name.module);
        if let Some(place) = record.and_then(|r| placement.directory(&r.dest_location).ok()) {
            object.location = place.to_string_lossy().into_owned();
        }
    }
}
