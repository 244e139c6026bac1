#!/bin/bash
# Stages bare, ready and machine: the roots of stories, without our package, with it, and with a kernel
# and its headers besides.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# install_packages ROOT FILE...: runs pacman -U in ROOT with packages from outside.
install_packages() {
    local root=$1 file
    shift
    mkdir -p "$root/srv/packages"
    for file in "$@"; do cp "$file" "$root/srv/packages/"; done
    # The stubs contain files that Debian's packages have, too.
    logged in_root "$root" sh -ec 'pacman -U --noconfirm --overwrite "*" /srv/packages/*'
    rm -r "$root/srv/packages"
}

make_bare() {
    local file stubs=()
    cp -a --reflink=auto "$testbed/base/." "$1/"
    for file in "$testbed"/stubs/*.pkg.tar.zst; do
        [[ $file == */dkms.pkg.tar.zst ]] || stubs+=("$file")
    done
    install_packages "$1" "${stubs[@]}"
    # The real dkms is /opt/peer/usr/sbin/dkms.
    cp -a "$testbed/sources/peer" "$1/opt/peer"
}

make_ready() {
    cp -a --reflink=auto "$testbed/bare/." "$1/"
    local type path mode
    install_packages "$1" "$testbed"/ours/*.pkg.tar.zst
    # As 30-systemd-tmpfiles.hook of Arch does.
    while read -r type path mode _; do
        [[ $type != d ]] || install -d -m "$mode" "$1$path"
    done <"$1/usr/lib/tmpfiles.d/alpm-dkms.conf"
}

make_machine() {
    cp -a --reflink=auto "$testbed/ready/." "$1/"
    install_packages "$1" "$testbed"/kernels/linux-{,headers-}1.pkg.tar.zst
}

recipe=$(digest_of "${BASH_SOURCE[0]}")
stage bare "$recipe-$(digest_below base sources stubs)" make_bare
stage ready "$recipe-$(digest_below bare ours)" make_ready
stage machine "$recipe-$(digest_below ready kernels)" make_machine
