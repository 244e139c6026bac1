#!/bin/bash
# Stage sources: two kernels, module sources and dkms from Debian, as sources of packages.
#
#   linux/ linux-lts/    build/ (headers), objects/, vmlinuz, version, modules.*
#   modules/             NAME-VERSION/, as in /usr/src
#   peer/                Debian's dkms, unpacked
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modules=(acpi-call bbswitch digimend tp-smapi v4l2loopback vhba)

# Objects of the kernels, including dependencies of the modules. Some may be built in instead.
objects=(videodev mc videobuf2-common usbhid hid-generic hid loop dm-mod scsi_mod zram usb-storage)

# Prints the names of the packages of the kernel in suite $1, as apt knows them.
# shellcheck disable=SC2016 # expanded in the root
kernel_packages='
    depends() { apt-cache show --no-all-versions "$1" | sed -n "/^Depends: /{s///;s/,/\n/g;p}" | sed -E "s/^ *//;s/[ (|].*//"; }
    known() { apt-cache show "$1" >/dev/null 2>&1; }
    headers=$(apt-cache depends --important "linux-headers-amd64/$1" | sed -n "s/^ *Depends: \(linux-headers-.*\)/\1/p")
    echo "$headers"
    depends "$headers" | grep -E "^linux-(headers-.*-common|kbuild-)"
    release=${headers#linux-headers-}
    if known "linux-modules-$release"; then
        printf "%s\n" "linux-modules-$release" "linux-binary-$release" "linux-base-$release"
    else
        echo "linux-image-$release"
    fi'

# fetch DIRECTORY SCRIPT ARG: downloads the packages that SCRIPT prints into DIRECTORY.
fetch() {
    mkdir -p "$1"
    # shellcheck disable=SC2016 # expanded in the root
    logged in_root "$testbed/base" --bind "$1" /srv bash -euo pipefail -c '
        cd /srv
        bash -euo pipefail -c "$1" names "${@:2}" >names
        xargs -a names apt-get -q download' fetch "${@:2}"
}

# make_kernel OUT SUITE: unpacks the kernel of SUITE and merges Debian's three header trees.
make_kernel() {
    local out=$1 raw=$1/raw deb name file
    fetch "$out/debs" "$kernel_packages" "$2"
    mkdir -p "$raw" "$out/build" "$out/objects"
    local wanted=()
    for name in "${objects[@]}"; do wanted+=("*/$name.ko*"); done
    for deb in "$out"/debs/*.deb; do
        case ${deb##*/} in
        linux-modules-* | linux-image-* | linux-binary-*)
            # Unpack only some objects of a hundred megabytes.
            dpkg-deb --fsys-tarfile "$deb" |
                tar -x -C "$raw" --wildcards "${wanted[@]}" '*/vmlinuz*' '*/modules.builtin*' 2>/dev/null || true ;;
        *) dpkg-deb -x "$deb" "$raw" ;;
        esac
    done

    cp -a "$raw"/usr/src/linux-headers-*-common/. "$out/build/"
    rm "$out/build/scripts" "$out/build/tools"
    cp -a "$raw"/usr/lib/linux-kbuild-*/. "$out/build/"
    # The Makefile and the links of this tree only lead to the other two.
    rm "$raw"/usr/src/linux-headers-*-amd64/{Makefile,scripts,tools}
    cp -a "$raw"/usr/src/linux-headers-*-amd64/. "$out/build/"
    prune_build "$out/build"

    while IFS= read -r file; do
        name=${file##*/}
        unxz_if_needed "$file" "$out/objects/${name%%.ko*}.ko"
    done < <(find "$raw" -name '*.ko*' -type f)
    find "$raw" -name 'vmlinuz*' -exec cp {} "$out/vmlinuz" \;
    for name in modules.builtin modules.builtin.modinfo; do
        find "$raw" -name "$name" -exec cp {} "$out/$name" \;
    done
    sed -E 's/[^0-9.].*//' "$out/build/include/config/kernel.release" >"$out/version"
    rm -rf "$raw" "$out/debs"
}

unxz_if_needed() {
    case $1 in
    *.xz) xz -dc "$1" >"$2" ;;
    *.zst) zstd -dqc "$1" >"$2" ;;
    *) cp "$1" "$2" ;;
    esac
}

# Removes files that no module needs, so that the headers package is quick to unpack.
prune_build() {
    find "$1/arch" -mindepth 1 -maxdepth 1 -type d ! -name x86 -exec rm -rf {} +
    find "$1/include/config" -type f -empty -delete
    find "$1/include/config" -mindepth 1 -type d -empty -delete
    # These name Debian's compilers.
    rm -f "$1/.kernelvariables" "$1/include/generated/rustc_cfg"
    # kbuild warns if the name of the compiler differs from that in the configuration.
    sed -i -E '/^CONFIG_CC_VERSION_TEXT=/s/"[^ ]*gcc[^ ]*/"gcc/' "$1/.config" "$1/include/config/auto.conf"
}

make_sources() {
    local out=$1 deb
    make_kernel "$out/linux" forky
    make_kernel "$out/linux-lts" trixie

    # shellcheck disable=SC2016 # expanded in the root
    fetch "$out/debs" 'printf "%s\n" "$@"' "${modules[@]/%/-dkms}" dkms
    for deb in "$out"/debs/*-dkms_*.deb; do
        dpkg-deb -x "$deb" "$out/unpacked"
    done
    mv "$out/unpacked/usr/src" "$out/modules"
    dpkg-deb -x "$out"/debs/dkms_*.deb "$out/peer"
    rm -rf "$out/unpacked" "$out/debs"
    # Debian's hooks for apt and kernel-install are not compared.
    rm -rf "$out/peer/etc/kernel" "$out/peer/usr/lib/kernel" "$out/peer/usr/share"
}

stage sources "$(digest_of "${BASH_SOURCE[0]}")-$(digest_below base)" make_sources
