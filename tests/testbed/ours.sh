#!/bin/bash
# Stage ours: our own package, made by makepkg from this checkout as an unprivileged user, its unit tests included.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/checkout.sh"
find_cargo

make_ours() {
    # Dependencies are checked where the package is installed; the tools to build it are Debian's.
    logged in_checkout makepkg --force --nodeps --noconfirm
    mv "$testbed"/checkout/*.pkg.tar.zst "$1/alpm-dkms.pkg.tar.zst"
    bsdtar -xOf "$1/alpm-dkms.pkg.tar.zst" .PKGINFO |
        awk -v OFS='\t' '$1 == "pkgver" { print "alpm-dkms", "alpm-dkms", $3, "" }' >"$1/index"
}

stage ours "$(checkout_digest)-$(digest_below base)" make_ours
