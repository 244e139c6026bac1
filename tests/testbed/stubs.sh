#!/bin/bash
# Stage stubs: packages that stand for what Arch has beside us, so that pacman resolves our dependencies.
#
# Their programs are Debian's, which pacman does not know of. kmod, mkinitcpio and sbctl bring stand-ins of their hooks
# (neighbours/); dkms is Debian's real script under Arch's path, for the stories of moving from it and back to it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"

empty=(bash coreutils diffutils findutils gawk gcc gcc-libs glibc gzip libarchive make openssl pacman patch sed systemd
    util-linux xz zstd)

# stub NAME [KEY=VALUE]...: packages what was put into $work/NAME.
stub() {
    mkdir -p "$work/$1"
    package "$1" "$1" 1-1 '' "$work/$1" "${@:2}"
}

# neighbour NAME: a stub with the files of neighbours/NAME, which stand as in a root.
neighbour() {
    cp -a "$here/neighbours/$1" "$work/$1"
    stub "$1"
}

# dkms as Arch has it: the script in /usr/bin, its framework.conf as a backup file.
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
