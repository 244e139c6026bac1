#!/bin/bash
# Stage ours: our package, built from this checkout with makepkg, which also runs the unit tests.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/checkout.sh"
find_cargo

make_ours() {
    local name
    name=$(release_name)
    copy_checkout
    tar -C "$testbed/checkout/src" -czf "$testbed/checkout/$name.tar.gz" --exclude="$name/target" "$name"
    cp "$repo"/packaging/aur/alpm-dkms/{PKGBUILD,alpm-dkms.install} "$testbed/checkout/"
    # --nodeps, because Debian provides the build dependencies. pacman -U checks the others.
    logged in_build_root /build makepkg --force --nodeps --noconfirm
    mv "$testbed"/checkout/*.pkg.tar.zst "$1/alpm-dkms.pkg.tar.zst"
    bsdtar -xOf "$1/alpm-dkms.pkg.tar.zst" .PKGINFO |
        awk -v OFS='\t' '$1 == "pkgver" { print "alpm-dkms", "alpm-dkms", $3, "" }' >"$1/index"
}

stage ours "$(checkout_digest)-$(digest_below base)" make_ours
