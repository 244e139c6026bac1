#!/bin/bash
# Stages corpus and corpus-few: Debian's *-dkms packages, and what some of them need to build: corpus.sh [all]
#
#   PACKAGE/files/    a package, unpacked; nothing of it is ever installed
#   files/            what the builds need beside a compiler, unpacked
#   index             one line each: package, its version, and the module as name/version
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Those that `make check` goes through: quick to build, and as unlike each other as can be.
few=(dkms-replace-test-dkms jool-dkms librem-ec-acpi-dkms mstflint-dkms xone-dkms)

# zfs and openafs run a configure script, lttng-modules and others ask for headers and tools of user space.
needs=(iptables libelf-dev libssl-dev libxtables-dev lsb-release perl python3 zlib1g-dev)

# shellcheck disable=SC2016 # expanded in the root
fetch='
    cd /srv/debs
    apt-get -q update
    if [[ $1 ]]; then
        printf "%s\n" $1 >names
    else
        # dh-dkms helps to make such packages, and is none.
        apt-cache search -n -- "-dkms$" | cut -d" " -f1 | grep -v "^dh-dkms$" >names
    fi
    xargs -a names apt-get -q download
    if (($# > 1)); then
        apt-get -q install --yes --download-only "${@:2}"
        mkdir needs
        cp /var/cache/apt/archives/*.deb needs/
    fi'

# make_corpus OUT PACKAGES NEED...: PACKAGES are names in one word, or nothing for all that Debian has.
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
        # Debian's packages call `dkms add` with the name and the version that the directory is made of.
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
