#!/bin/bash
# Stage power: the modules with which the kernel of linux-true-2 mounts an ext4 disk in QEMU.
#
#   objects/    ext4, virtio_blk and their dependencies, uncompressed
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# In the order in which they are loaded. Some may be built in instead.
objects=(crc16 crc32c-cryptoapi crc32c_generic libcrc32c mbcache jbd2 ext4 virtio_blk)

# shellcheck disable=SC2016 # expanded by the inner shell
make_power() {
    local release name file
    release=$(<"$testbed/sources/linux/build/include/config/kernel.release")
    logged in_copy base --bind "$1" /srv/power bash -euc '
        apt-get -q update
        cd /srv/power
        # If the archive has a newer kernel, delete target/testbed/sources.digest.
        apt-get -q download "linux-modules-$1" || apt-get -q download "linux-image-$1"' power "$release"
    local wanted=()
    for name in "${objects[@]}"; do wanted+=("*/$name.ko*"); done
    mkdir "$1/raw" "$1/objects"
    dpkg-deb --fsys-tarfile "$1"/linux-*.deb |
        tar -x -C "$1/raw" --wildcards "${wanted[@]}" 2>/dev/null || true
    while IFS= read -r file; do
        name=${file##*/}
        case $name in
        *.xz) xz -dc "$file" >"$1/objects/${name%.xz}" ;;
        *.zst) zstd -dqc "$file" >"$1/objects/${name%.zst}" ;;
        *) cp "$file" "$1/objects/$name" ;;
        esac
    done < <(find "$1/raw" -name '*.ko*' -type f)
    [[ -e $1/objects/ext4.ko ]]
    rm -rf "$1/raw" "$1"/linux-*.deb
}

stage power "$(digest_of "${BASH_SOURCE[0]}")-$(digest_below base sources)" make_power
