#!/bin/bash
# Stage kernels: packages of kernels and headers in Arch's layout, in several releases.
#
#   linux-1 linux-2 linux-lts-1 linux-lts-2    two kernels, each with its next release
#   linux-headers-1 … linux-lts-headers-2      their headers
#   linux-headers-1-symvers                    as linux-headers-1, with another Module.symvers
#   linux-1-bbswitch                           as linux-1, with an in-tree module named bbswitch
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"
source "$here/kernel_packages.sh"

# successor VERSION: prints the next point release, such as 7.2.13 for 7.2.12.
successor() { printf '%s.%s\n' "${1%.*}" "$((${1##*.} + 1))"; }

make_kernels() {
    local version next extra=''
    start_packages "$1"
    version=$(<"$testbed/sources/linux/version")
    next=$(successor "$version")
    kernel linux-1 linux "$version.arch1-1" "$version-arch1-1"
    headers linux-headers-1 linux "$version.arch1-1" "$version-arch1-1"
    headers linux-headers-1-symvers linux "$version.arch1-1.1" "$version-arch1-1"
    kernel linux-2 linux "$next.arch1-1" "$next-arch1-1"
    headers linux-headers-2 linux "$next.arch1-1" "$next-arch1-1"
    extra=$work/in-tree
    mkdir -p "$extra"
    cp "$testbed/sources/linux/objects/loop.ko" "$extra/bbswitch.ko"
    kernel linux-1-bbswitch linux "$version.arch1-1.1" "$version-arch1-1"
    extra=''

    version=$(<"$testbed/sources/linux-lts/version")
    next=$(successor "$version")
    kernel linux-lts-1 linux-lts "$version-1" "$version-1-lts"
    headers linux-lts-headers-1 linux-lts "$version-1" "$version-1-lts"
    kernel linux-lts-2 linux-lts "$next-1" "$next-1-lts"
    headers linux-lts-headers-2 linux-lts "$next-1" "$next-1-lts"
    finish_packages
}

stage kernels "$(digest_of "${BASH_SOURCE[0]}" "$here/pack.sh" "$here/packages.sh" "$here/kernel_packages.sh")-$(digest_below sources)" make_kernels
