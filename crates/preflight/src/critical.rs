//! Finds the kernel modules without which this machine cannot start or be used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dkms_engine::os::mount_table;

/// The classes of devices without which a machine is hardly usable, each given as the class's
/// directory in sysfs and the kind of its devices.
const CLASSES: [(&str, &str); 3] = [("net", "network"), ("drm", "display"), ("block", "storage")];

/// The mount points whose file systems a machine needs, each with the reason why the machine needs
/// the driver of that file system.
const MOUNT_POINTS: [(&str, &str); 4] = [
    ("/", "is the driver of the root file system"),
    ("/usr", "is the driver of the file system /usr"),
    ("/var", "is the driver of the file system /var"),
    ("/home", "is the driver of the file system /home"),
];

/// Returns the names of the kernel modules that the machine below `root` needs, each with the
/// reason, such as `drives the network device enp3s0`. In the names, `_` replaces each `-`.
///
/// These are the drivers that are currently bound to a storage, display or network device, and the
/// file systems of `/`, `/usr`, `/var` and `/home`. Some names may be those of drivers that are
/// built into the kernel.
pub(crate) fn needed(root: &Path) -> BTreeMap<String, String> {
    let mut needed = BTreeMap::new();
    // A module can have several reasons; the first one is the most useful to the reader. The name
    // of a network interface, for example, says more than the address of its PCI device.
    let all = file_systems(root).into_iter().chain(class_devices(root)).chain(pci_devices(root));
    for (module, reason) in all {
        needed.entry(module.replace('-', "_")).or_insert(reason);
    }
    needed
}

/// Returns the file systems of [`MOUNT_POINTS`], each with its reason.
fn file_systems(root: &Path) -> Vec<(String, String)> {
    let mounts = mount_table::read(&root.join("proc/self/mounts")).unwrap_or_default();
    let file_system = |(point, reason): (&str, &str)| {
        // A later mount hides an earlier one on the same directory.
        let mount = mounts.iter().rfind(|mount| mount.dir == Path::new(point))?;
        // The subtype, as in `fuse.sshfs`, is not part of the driver's name.
        let kind = mount.kind.split('.').next()?;
        Some((kind.to_owned(), reason.to_owned()))
    };
    MOUNT_POINTS.into_iter().filter_map(file_system).collect()
}

/// Returns the drivers of the devices of [`CLASSES`], including devices on USB and other buses.
fn class_devices(root: &Path) -> Vec<(String, String)> {
    let of_class = |(class, kind): (&str, &'static str)| {
        let devices = entries(&root.join("sys/class").join(class));
        devices.into_iter().filter_map(move |device| driver(&device.join("device"), &device, kind))
    };
    CLASSES.into_iter().flat_map(of_class).collect()
}

/// Returns the drivers of the storage, network and display devices on the PCI bus. Some of these
/// devices belong to none of the [`CLASSES`], such as a disk controller without disks, or a
/// graphics card without drm.
fn pci_devices(root: &Path) -> Vec<(String, String)> {
    let devices = entries(&root.join("sys/bus/pci/devices"));
    devices.iter().filter_map(|device| driver(device, device, pci_kind(device)?)).collect()
}

/// Returns the kind of a PCI device according to its base class; `None` for all kinds that are not
/// critical. Reads the device's file `class`, which contains, for example, `0x020000` for a network
/// device.
fn pci_kind(device: &Path) -> Option<&'static str> {
    let class = fs::read_to_string(device.join("class")).ok()?;
    match class.trim().strip_prefix("0x")?.get(..2)? {
        "01" => Some("storage"),
        "02" => Some("network"),
        "03" => Some("display"),
        _ => None,
    }
}

/// Returns the module of the driver that is bound to the device whose sysfs directory is `bound`,
/// and the reason why the machine needs that module. The reason names `device`. Returns `None` if
/// the device has no driver or the driver has no module.
fn driver(bound: &Path, device: &Path, kind: &str) -> Option<(String, String)> {
    let module = fs::read_link(bound.join("driver/module")).ok()?;
    let module = module.file_name()?.to_str()?.to_owned();
    Some((module, format!("drives the {kind} device {}", device.file_name()?.display())))
}

/// Returns the sorted paths of the entries in the directory `dir`. Returns an empty list if the
/// directory cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use testroot::TestRoot;

    use super::*;

    /// Adds a device in `sys/devices`, bound to a driver whose module is `module`.
    fn bound(root: &TestRoot, device: &str, module: &str) {
        root.dir(format!("sys/module/{module}"));
        root.link(
            format!("sys/bus/any/drivers/{module}/module"),
            format!("../../../../module/{module}"),
        );
        // As in sysfs, links are relative.
        let up = "../".repeat(device.split('/').count() + 1);
        root.link(format!("sys/devices/{device}/driver"), format!("{up}bus/any/drivers/{module}"));
    }

    fn pci(root: &TestRoot, address: &str, class: &str, module: &str) {
        let device = format!("pci0000:00/{address}");
        bound(root, &device, module);
        root.write(format!("sys/devices/{device}/class"), format!("{class}\n"));
        root.link(format!("sys/bus/pci/devices/{address}"), format!("../../../devices/{device}"));
    }

    /// Adds the device `name` of the class `class`, as a child of the device `parent`.
    fn of_class(root: &TestRoot, class: &str, name: &str, parent: &str) {
        let up = "../".repeat(parent.split('/').count() + 3);
        let device = format!("{parent}/{class}/{name}");
        root.link(format!("sys/devices/{device}/device"), format!("{up}devices/{parent}"));
        root.link(format!("sys/class/{class}/{name}"), format!("../../devices/{device}"));
    }

    fn reasons(root: &TestRoot) -> Vec<String> {
        let needed = needed(root.path());
        needed.into_iter().map(|(module, reason)| format!("{module}: {reason}")).collect()
    }

    #[rstest]
    #[case::storage("0x010802", Some("my_driver: drives the storage device 0000:01:00.0"))]
    #[case::network("0x020000", Some("my_driver: drives the network device 0000:01:00.0"))]
    #[case::display("0x030000", Some("my_driver: drives the display device 0000:01:00.0"))]
    #[case::sound("0x040300", None)]
    #[case::bridge("0x060400", None)]
    #[case::not_a_class("02", None)]
    #[case::short("0x0", None)]
    #[case::not_ascii("0x0é", None)]
    fn drivers_of_some_pci_classes_are_needed(#[case] class: &str, #[case] expected: Option<&str>) {
        let root = TestRoot::new();
        pci(&root, "0000:01:00.0", class, "my-driver");
        assert_eq!(reasons(&root), expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn drivers_of_devices_on_other_buses_are_needed() {
        let root = TestRoot::new();
        bound(&root, "usb1/1-1/1-1:1.0", "8821cu");
        of_class(&root, "net", "wlp3s0u1", "usb1/1-1/1-1:1.0");
        bound(&root, "platform/evdi.0", "evdi");
        of_class(&root, "drm", "card1", "platform/evdi.0");
        of_class(&root, "drm", "card1-DVI-I-1", "platform/evdi.0/drm/card1");
        bound(&root, "virtio1", "virtio_blk");
        of_class(&root, "block", "vda", "virtio1");
        // A sound device does not count.
        bound(&root, "usb1/1-2/1-2:1.0", "snd-usb-audio");
        of_class(&root, "sound", "card0", "usb1/1-2/1-2:1.0");
        assert_eq!(
            reasons(&root),
            [
                "8821cu: drives the network device wlp3s0u1",
                "evdi: drives the display device card1",
                "virtio_blk: drives the storage device vda",
            ]
        );
    }

    #[test]
    fn interface_is_named_rather_than_its_pci_device() {
        let root = TestRoot::new();
        pci(&root, "0000:03:00.0", "0x020000", "r8168");
        of_class(&root, "net", "enp3s0", "pci0000:00/0000:03:00.0");
        assert_eq!(reasons(&root), ["r8168: drives the network device enp3s0"]);
    }

    #[test]
    fn devices_without_a_module_are_ignored() {
        let root = TestRoot::new();
        // A loopback interface has no device, and a driver that is built in may have no module.
        root.dir("sys/devices/virtual/net/lo");
        root.link("sys/class/net/lo", "../../devices/virtual/net/lo");
        root.write("sys/class/net/bonding_masters", "\n");
        root.dir("sys/bus/any/drivers/ahci");
        root.write("sys/devices/pci0000:00/0000:02:00.0/class", "0x010601\n");
        root.link("sys/devices/pci0000:00/0000:02:00.0/driver", "../../../bus/any/drivers/ahci");
        let device = "../../../devices/pci0000:00/0000:02:00.0";
        root.link("sys/bus/pci/devices/0000:02:00.0", device);
        assert_eq!(reasons(&root), [""; 0]);
    }

    #[test]
    fn important_file_systems_are_needed() {
        let root = TestRoot::new();
        let table = "rootfs / rootfs rw 0 0\n\
                     pool/root / zfs rw,relatime,xattr 0 0\n\
                     devtmpfs /dev devtmpfs rw 0 0\n\
                     /dev/sdb /home bcachefs rw,relatime 0 0\n\
                     me@far:/ /home/me/far fuse.sshfs rw 0 0\n\
                     /dev/sdc /srv apfs rw 0 0\n\
                     usr /usr fuse.mount-tool ro 0 0\n\
                     half a line\n";
        root.write("proc/self/mounts", table);
        assert_eq!(
            reasons(&root),
            [
                "bcachefs: is the driver of the file system /home",
                "fuse: is the driver of the file system /usr",
                "zfs: is the driver of the root file system",
            ]
        );
    }

    #[test]
    fn machine_without_sysfs_needs_no_known_module() {
        assert_eq!(reasons(&TestRoot::new()), [""; 0]);
    }
}
