#!/bin/bash
# Stage bench-modules: the module packages that only the benchmark uses, besides those of modules.
#
#   broadcom-sta ddcci lime-forensics openrazer-driver xone hid-xpadneo    Debian's sources
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"

debian=(broadcom-sta-dkms ddcci-dkms lime-forensics-dkms openrazer-driver-dkms xone-dkms xpadneo-dkms)

make_bench_modules() {
    local debs=$1/debs deb source name version tree
    start_packages "$1"
    mkdir "$debs"
    # shellcheck disable=SC2016 # expanded in the root
    logged in_root "$testbed/base" --bind "$debs" /srv sh -euc 'cd /srv && apt-get -q download "$@"' fetch "${debian[@]}"
    for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$debs/unpacked"; done
    for source in "$debs"/unpacked/usr/src/*; do
        name=${source##*/}
        version=${name##*-}
        name=${name%-*}
        tree=$work/$name
        mkdir -p "$tree/usr/src"
        mv "$source" "$tree/usr/src/"
        package "$name" "${name//_/-}-dkms" "$version-1" "$name/$version" "$tree" depend=dkms
    done
    rm -r "$debs"
    finish_packages
}

stage bench-modules "$(digest_of "${BASH_SOURCE[0]}" "$here/pack.sh" "$here/packages.sh")-$(digest_below base)" make_bench_modules
