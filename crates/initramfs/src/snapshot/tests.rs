use dkms_engine::dkms_tree::{PendingList, PendingWork};
use testroot::TestRoot;

use super::*;

const IMAGE: &str = "boot/initramfs-linux.img";

/// Returns a root whose kernel has a preset with an image, and whose images are pending.
fn pending_root() -> (TestRoot, Machine) {
    let root = TestRoot::new();
    root.kernel("7.2").pkgbase("linux");
    let preset = format!("ALL_kver=7.2\nPRESETS=(default)\ndefault_image=/{IMAGE}\n");
    root.write("etc/mkinitcpio.d/linux.preset", preset);
    root.write("usr/bin/mkinitcpio", "");
    root.write(IMAGE, "old");
    let machine = Machine::for_hook(root.path());
    let work =
        PendingWork::Image { kernel: "7.2".parse().unwrap(), objects: ["zfs".to_owned()].into() };
    PendingList::of(&machine.trees).write(&work).unwrap();
    (root, machine)
}

/// Takes a snapshot and returns the record of the only image.
fn taken(machine: &Machine) -> Option<ImageSnapshot> {
    take_snapshot(machine, &Generator::detect(machine).unwrap()).unwrap();
    Snapshot::read(machine).images.pop()
}

#[test]
fn a_snapshot_is_kept_until_it_is_deleted() {
    let (_root, machine) = pending_root();
    let image = taken(&machine).unwrap();
    assert!(image.existed && image.copy.as_ref().unwrap().exists());
    let snapshot = Snapshot::read(&machine);
    let modules = ManagedModules::read(&machine, &"7.2".parse().unwrap());
    assert!(snapshot.has_objects(&"7.2".parse().unwrap(), &modules));
    assert!(!Snapshot::default().has_objects(&"7.2".parse().unwrap(), &modules));
    Snapshot::delete(&machine).unwrap();
    assert_eq!(Snapshot::read(&machine), Snapshot::default());
    assert!(!machine.trees.images().exists());
}

/// A run was killed after it had deleted the copy, and before it wrote the snapshot.
#[test]
fn a_copy_whose_file_is_missing_is_forgotten() {
    let (_root, machine) = pending_root();
    let image = taken(&machine).unwrap();
    fs::remove_file(image.copy.as_ref().unwrap()).unwrap();
    let kept = Snapshot::read(&machine).images.pop().unwrap();
    assert!(kept.copy.is_none() && kept.is_recorded());
}

/// mkinitcpio's hook deletes the image before the transaction.
#[test]
fn an_image_that_another_hook_deletes_has_existed() {
    let (root, machine) = pending_root();
    note_existing_images(&machine, &Generator::detect(&machine).unwrap()).unwrap();
    fs::remove_file(root.at(IMAGE)).unwrap();
    let image = taken(&machine).unwrap();
    assert!(image.existed && !image.is_recorded());

    let (root, machine) = pending_root();
    fs::remove_file(root.at(IMAGE)).unwrap();
    note_existing_images(&machine, &Generator::detect(&machine).unwrap()).unwrap();
    assert!(!taken(&machine).unwrap().existed);
}

/// While nothing is mounted on /boot, the files in that directory are not the images.
#[test]
fn nothing_is_recorded_if_the_boot_file_system_is_not_mounted() {
    let (root, machine) = pending_root();
    root.write("etc/fstab", "UUID=1 /boot vfat noauto 0 2\n");
    root.write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    assert_eq!(taken(&machine), None);
    root.write("proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /boot vfat rw 0 0\n");
    assert!(taken(&machine).unwrap().is_recorded());
}

#[test]
fn a_snapshot_of_another_format_is_ignored() {
    let (_root, machine) = pending_root();
    taken(&machine).unwrap();
    let path = file(&machine);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("format = 1", "format = 2")).unwrap();
    assert_eq!(Snapshot::read(&machine), Snapshot::default());
    // The images are recorded again.
    assert!(taken(&machine).unwrap().is_recorded());
}

#[test]
fn vanished_images_belong_to_their_kernel_and_its_upgrade() {
    let (root, machine) = pending_root();
    note_existing_images(&machine, &Generator::detect(&machine).unwrap()).unwrap();
    root.kernel("7.3").pkgbase("linux");
    root.kernel("6.12").pkgbase("linux-lts");
    let snapshot = Snapshot::read(&machine);
    let kernels = Kernels::read(&machine.trees).unwrap().all;
    let vanished = |listed: &[Image]| {
        let images = kernels.iter().flat_map(|kernel| snapshot.vanished(kernel, root.path()));
        let images = images.filter(|image| is_wanted(image, listed));
        images.map(|image| image.kernel.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(vanished(&[]), [""; 0]);
    fs::remove_file(root.at(IMAGE)).unwrap();
    assert_eq!(vanished(&[]), ["7.2", "7.3"]);
    // The preset still names the image.
    let image = snapshot.images[0].image.clone();
    assert_eq!(vanished(std::slice::from_ref(&image)), ["7.2", "7.3"]);
    // The preset names only another image.
    let other = Image { path: "/boot/other.img".into(), ..image };
    assert_eq!(vanished(&[other]), [""; 0]);
}
