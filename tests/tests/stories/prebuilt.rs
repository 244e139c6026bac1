//! Packages of prebuilt modules, which makepkg builds as an ordinary user.

use stories::{Root, find};

use crate::fixture::{machine, release};

/// As in the packages of nvidia-open, virtualbox and Manjaro: dkms builds in a tree below `$srcdir`.
const PKGBUILD: &str = r#"
pkgname=prebuilt
pkgver=1
pkgrel=1
arch=(x86_64)
license=(GPL)
makedepends=(dkms linux-headers bbswitch-dkms)

build() {
    fakeroot dkms build --dkmstree "$srcdir" -m MODULE -k RELEASE
}

package() {
    install -Dm644 MODULE/RELEASE/"$CARCH"/module/*.ko* -t "$pkgdir/usr/lib/modules/RELEASE/extramodules"
}
"#;

/// Returns everything in the trees of the machine, and the output of `dkms status`.
fn trees(root: &Root) -> (Vec<String>, Vec<String>) {
    let trees = ["var/lib/dkms", "usr/lib/modules", "usr/src"];
    (trees.iter().flat_map(|tree| root.snapshot(tree).paths()).collect(), root.status())
}

/// The package contains the object, and the trees of the machine do not change.
#[test]
fn makepkg_packages_a_prebuilt_module() {
    let root = machine(&[find("bbswitch")]);
    let before = trees(&root);
    let pkgbuild = PKGBUILD.replace("MODULE", find("bbswitch").module());
    root.write("srv/prebuilt/PKGBUILD", &pkgbuild.replace("RELEASE", &release()));
    root.run("chown", &["-R", "builder:", "/srv/prebuilt"]).ok();
    root.shell("cd /srv/prebuilt && runuser -u builder -- makepkg").ok();
    assert_eq!(trees(&root), before);

    root.shell("cd /srv/prebuilt && mkdir out && bsdtar -xf prebuilt-1-1-*.pkg.tar.* -C out").ok();
    let dir = format!("srv/prebuilt/out/usr/lib/modules/{}/extramodules", release());
    let objects = root.names(&dir);
    assert_eq!(objects.len(), 1, "{objects:?}");
    let vermagic = root.run("modinfo", &["-F", "vermagic", &format!("/{dir}/{}", objects[0])]);
    vermagic.ok().has(&release());
}
