#!/bin/bash
# Stage stubs: fake Arch packages, so that pacman can resolve our dependencies.
#
# The programs are Debian's. kmod, mkinitcpio and sbctl contain imitations of their hooks
# (neighbours/). dkms contains Debian's real script at Arch's path, for the stories of migration.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"

empty=(bash coreutils diffutils findutils gawk gcc gcc-libs glibc gzip libarchive make openssl pacman patch sed systemd
    util-linux xz zstd)

# stub NAME [KEY=VALUE]...: builds a package of $work/NAME.
stub() {
    mkdir -p "$work/$1"
    package "$1" "$1" 1-1 '' "$work/$1" "${@:2}"
}

# neighbour NAME: builds a stub with the files of neighbours/NAME, which is laid out like a root.
neighbour() {
    cp -a "$here/neighbours/$1" "$work/$1"
    stub "$1"
}

# dkms as on Arch: the script in /usr/bin, and framework.conf as a backup file.
peer_package() {
    local tree=$work/dkms
    mkdir -p "$tree/usr/bin" "$tree/etc/dkms" "$tree/var/lib/dkms"
    cp "$testbed/sources/peer/usr/sbin/dkms" "$tree/usr/bin/dkms"
    cp "$testbed/sources/peer/etc/dkms/framework.conf" "$tree/etc/dkms/"
    package dkms dkms 3.2.2-1 '' "$tree" backup=etc/dkms/framework.conf
}

make_stubs() {
    local name
    start_packages "$1"
    for name in "${empty[@]}"; do stub "$name"; done
    for name in kmod mkinitcpio sbctl; do neighbour "$name"; done
    peer_package
    finish_packages
}

mapfile -t recipe < <(find "$here/neighbours" -type f | sort)
stage stubs "$(digest_of "${BASH_SOURCE[0]}" "$here/pack.sh" "$here/packages.sh" "${recipe[@]}")-$(digest_below sources)" make_stubs
