#!/bin/bash
# Stages corpus and corpus-few: Debian's *-dkms packages and their build dependencies.
# Usage: corpus.sh [all]
#
#   PACKAGE/files/    the unpacked package, which is not installed
#   files/            the unpacked build dependencies
#   index             a line for each package: its name, its version and the module id
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The packages of `make check`: quick to build, and unlike each other.
few=(dkms-replace-test-dkms jool-dkms librem-ec-acpi-dkms mstflint-dkms xone-dkms)

# zfs and openafs run configure scripts; lttng-modules and others need headers and tools.
needs=(iptables libelf-dev libssl-dev libxtables-dev lsb-release perl python3 zlib1g-dev)

# shellcheck disable=SC2016 # expanded in the root
fetch='
    cd /srv/debs
    apt-get -q update
    if [[ $1 ]]; then
        printf "%s\n" $1 >names
    else
        # dh-dkms is a tool for packagers.
        apt-cache search -n -- "-dkms$" | cut -d" " -f1 | grep -v "^dh-dkms$" >names
    fi
    xargs -a names apt-get -q download
    if (($# > 1)); then
        apt-get -q install --yes --download-only "${@:2}"
        mkdir needs
        cp /var/cache/apt/archives/*.deb needs/
    fi'

# make_corpus OUT PACKAGES NEED...: creates the stage. PACKAGES is one word with the package names,
# or empty for all packages of Debian.
make_corpus() {
    local out=$1 deb package source name
    mkdir "$out/debs" "$out/files"
    logged in_copy base --bind "$out/debs" /srv/debs bash -euo pipefail -c "$fetch" fetch "${@:2}"
    for deb in "$out"/debs/needs/*.deb; do
        if [[ -e $deb ]]; then dpkg-deb -x "$deb" "$out/files"; fi
    done
    for deb in "$out"/debs/*.deb; do
        package=$(dpkg-deb --field "$deb" Package)
        mkdir "$out/$package"
        dpkg-deb -x "$deb" "$out/$package/files"
        rm -rf "$out/$package/files/usr/share"
        source=$(echo "$out/$package"/files/usr/src/*)
        # The scripts of the packages run `dkms add` with the name and the version in the
        # directory's name.
        name=$(sed -nE 's/^PACKAGE_NAME="?([^" ]+)"?.*/\1/p' "$source/dkms.conf")
        source=${source##*/}
        printf '%s\t%s\t%s\n' "$package" "$(dpkg-deb --field "$deb" Version)" "$name/${source#"$name-"}" >>"$out/index"
    done
    rm -rf "$out/debs"
}

make_few() { make_corpus "$1" "${few[*]}"; }
make_all() { make_corpus "$1" '' "${needs[@]}"; }

digest=$(digest_of "${BASH_SOURCE[0]}")-$(digest_below base)
case ${1-} in
'') stage corpus-few "$digest" make_few ;;
all) stage corpus "$digest" make_all ;;
*) die "usage: corpus.sh [all]" ;;
esac
