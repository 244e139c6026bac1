#!/bin/bash
# Stage sources: what packages are made from, taken from Debian's: two kernels, the modules' sources, the peer dkms.
#
#   linux/ linux-lts/    build/ (a whole tree to compile modules against), objects/, vmlinuz, version, modules.*
#   modules/             <name>-<version>/ as they stand in /usr/src
#   peer/                Debian's dkms, unpacked
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modules=(acpi-call bbswitch digimend tp-smapi v4l2loopback vhba)

# A few objects of the kernel's own, among them what the modules above need; a kernel that has one built in is fine.
objects=(videodev mc videobuf2-common usbhid hid-generic hid loop dm-mod scsi_mod zram usb-storage)

# The names of the packages that make up the kernel of suite $1. No version is named here: apt is asked.
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

# fetch DIRECTORY SCRIPT ARG: downloads into DIRECTORY the packages that SCRIPT names.
fetch() {
    mkdir -p "$1"
    # shellcheck disable=SC2016 # expanded in the root
    logged in_root "$testbed/base" --bind "$1" /srv bash -euo pipefail -c '
        cd /srv
        bash -euo pipefail -c "$1" names "${@:2}" >names
        xargs -a names apt-get -q download' fetch "${@:2}"
}

# make_kernel OUT SUITE: unpacks the kernel of SUITE and merges Debian's three trees into one.
make_kernel() {
    local out=$1 raw=$1/raw deb name file
    fetch "$out/debs" "$kernel_packages" "$2"
    mkdir -p "$raw" "$out/build" "$out/objects"
    local wanted=()
    for name in "${objects[@]}"; do wanted+=("*/$name.ko*"); done
    for deb in "$out"/debs/*.deb; do
        case ${deb##*/} in
        linux-modules-* | linux-image-* | linux-binary-*)
            # Of a hundred megabytes of drivers only those objects are wanted.
            dpkg-deb --fsys-tarfile "$deb" |
                tar -x -C "$raw" --wildcards "${wanted[@]}" '*/vmlinuz*' '*/modules.builtin*' 2>/dev/null || true ;;
        *) dpkg-deb -x "$deb" "$raw" ;;
        esac
    done

    cp -a "$raw"/usr/src/linux-headers-*-common/. "$out/build/"
    rm "$out/build/scripts" "$out/build/tools"
    cp -a "$raw"/usr/lib/linux-kbuild-*/. "$out/build/"
    # The per-flavour tree: its Makefile and links only point to the other two.
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

# Leaves out what no external module reads, so that a package of the tree is quick to unpack.
prune_build() {
    find "$1/arch" -mindepth 1 -maxdepth 1 -type d ! -name x86 -exec rm -rf {} +
    find "$1/include/config" -type f -empty -delete
    find "$1/include/config" -mindepth 1 -type d -empty -delete
    # The compilers of Debian's choice, by names that exist on Debian only.
    rm -f "$1/.kernelvariables" "$1/include/generated/rustc_cfg"
    # Kbuild warns at each build when the compiler's name is not the one the kernel was built by.
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
    # Debian's hooks for apt and kernel-install are not part of what is compared.
    rm -rf "$out/peer/etc/kernel" "$out/peer/usr/lib/kernel" "$out/peer/usr/share"
}

stage sources "$(digest_of "${BASH_SOURCE[0]}")-$(digest_below base)" make_sources
