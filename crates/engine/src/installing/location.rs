//! Where in a kernel's directory the objects of a module belong.

use std::path::PathBuf;

use crate::conf::{Conf, Values};
use crate::dkms_tree::BuiltObject;
use crate::machine::{Kernel, Machine};
use crate::names::ModuleId;
use crate::objects::ObjectName;

/// The default location, below the kernel's directory.
pub(crate) fn usual(machine: &Machine) -> PathBuf {
    let placement = machine.placement().ok();
    placement
        .and_then(|placement| placement.directory("/updates/dkms").ok())
        .unwrap_or_else(|| PathBuf::from("updates/dkms"))
}

/// Gives the objects of a module their places: the distribution's, or their own where it leaves
/// these to each conf.
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
