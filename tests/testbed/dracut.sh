#!/bin/bash
# Stage dracut: Debian's dracut with its dependencies, and two kernels that can be booted.
#
#   files/                                   dracut, tools for unified images, dependencies
#   dracut                                   a package with hooks and a dracut that logs its images
#   linux-true-1 linux-true-headers-1 …-2    kernels with their original release
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"
source "$here/kernel_packages.sh"

# Unpacked but not installed, because the scripts of udev and systemd need a booted machine.
# shellcheck disable=SC2016 # expanded by the inner shell
unpack_dracut() {
    logged in_copy base --bind "$1" /srv/dracut bash -euc '
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update
        apt-get -q install --yes --download-only dracut-core systemd-boot-efi sbsigntool
        for package in /var/cache/apt/archives/*.deb; do
            dpkg -x "$package" /srv/dracut/files
        done'
    # The package dracut installs a wrapper in its place.
    mv "$1/files/usr/bin/dracut" "$1/files/usr/lib/dracut/dracut"
}

# true_kernel NUMBER SOURCE: builds packages of a kernel and its headers, named linux.
true_kernel() {
    local release version
    release=$(<"$testbed/sources/$2/build/include/config/kernel.release")
    version=$(<"$testbed/sources/$2/version")-1
    kernel "linux-true-$1" linux "$version" "$release" "$2"
    headers "linux-true-headers-$1" linux "$version" "$release" "$2"
}

make_dracut() {
    mkdir "$1/files"
    unpack_dracut "$1"
    start_packages "$1"
    cp -a "$here/dracut" "$work/dracut"
    package dracut dracut 112-1 '' "$work/dracut"
    true_kernel 1 linux-lts
    true_kernel 2 linux
    finish_packages
}

mapfile -t recipe < <(find "$here/dracut" -type f | sort)
stage dracut "$(digest_of "${BASH_SOURCE[0]}" "$here/pack.sh" "$here/packages.sh" "$here/kernel_packages.sh" "${recipe[@]}"
)-$(digest_below base sources)" make_dracut
