//! Packages of a kernel in the layout of Arch Linux ARM.

use crate::packages::{PackageFile, find};
use crate::recipe::pack;
use crate::root::Root;

/// The name of the kernel package.
const NAME: &str = "linux-aarch64";

/// Builds `linux-aarch64` and its headers from the packages `linux-NUMBER` of the testbed, with
/// another release.
///
/// The layout is that of `core/linux-aarch64` in Arch Linux ARM's PKGBUILDs: the kernel is
/// `/boot/Image`, its directory contains neither `vmlinuz` nor `pkgbase`, the package contains the
/// preset, which names the release, and a file in `/usr/lib/initcpio` triggers mkinitcpio's hook.
/// The code is that of the machine's architecture.
#[track_caller]
pub fn alarm_kernel(root: &Root, number: u8) -> [PackageFile; 2] {
    let kernel = find(&format!("linux-{number}"));
    let headers = find(&format!("linux-headers-{number}"));
    let old = kernel.release();
    let (base, _) = old.split_once('-').expect("a release such as 7.2.12-arch1-1");
    let (release, version) = (format!("{base}-1-aarch64"), format!("{base}-1"));
    let (kernel_tree, headers_tree) = ("/srv/stage-kernel", "/srv/stage-headers");
    let unpack = format!(
        "set -e\n\
         mkdir -p {kernel_tree} {headers_tree}\n\
         tar -C {kernel_tree} -xf {} usr; tar -C {headers_tree} -xf {} usr\n\
         for tree in {kernel_tree} {headers_tree}; do\n\
         mv $tree/usr/lib/modules/{old} $tree/usr/lib/modules/{release}; done\n",
        kernel.file, headers.file
    );
    let arrange_kernel = format!(
        "cd {kernel_tree}\n\
         mkdir -p boot/dtbs etc/mkinitcpio.d usr/lib/initcpio\n\
         mv usr/lib/modules/{release}/vmlinuz boot/Image; echo >boot/dtbs/board.dtb\n\
         rm usr/lib/modules/{release}/pkgbase\n\
         echo trigger >usr/lib/initcpio/{release}\n\
         printf 'ALL_kver=\"{release}\"\\nPRESETS=(default)\\n\
         default_image=\"/boot/initramfs-linux.img\"\\n' >etc/mkinitcpio.d/{NAME}.preset\n"
    );
    let arrange_headers = format!(
        "cd {headers_tree}\n\
         rm usr/src/linux; ln -s ../lib/modules/{release}/build usr/src/{NAME}\n\
         cd usr/lib/modules/{release}/build\n\
         echo {release} >include/config/kernel.release\n\
         sed -i 's/{old}/{release}/' include/generated/utsrelease.h include/generated/utsversion.h\n"
    );
    root.shell(&(unpack + &arrange_kernel + &arrange_headers)).ok();
    let packed = |tree: &str, name: &str| PackageFile {
        content: release.clone(),
        ..pack(root, tree, name, &version, &[])
    };
    [packed(kernel_tree, NAME), packed(headers_tree, &format!("{NAME}-headers"))]
}
