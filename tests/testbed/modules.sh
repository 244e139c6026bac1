#!/bin/bash
# Stage modules: a package for each of Debian's module sources, as on Arch.
#
#   acpi-call bbswitch digimend tp_smapi v4l2loopback vhba    Debian's sources
#   bbswitch-next v4l2loopback-next vhba-next                 the same with a higher version
#
# Stories build other modules, such as broken ones, themselves.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"

# module ALIAS NAME VERSION SOURCE: builds a package of SOURCE as usr/src/NAME-VERSION.
module() {
    local alias=$1 name=$2 version=$3 tree=$work/$1
    mkdir -p "$tree/usr/src"
    cp -a "$4" "$tree/usr/src/$name-$version"
    sed -i "s/^PACKAGE_VERSION=.*/PACKAGE_VERSION=\"$version\"/" "$tree/usr/src/$name-$version/dkms.conf"
    if [[ $alias == *-next ]]; then
        # Stories recognise the version of an object with modinfo -F testbed.
        printf '\nMODULE_INFO(testbed, "%s");\n' "$version" >>"$tree/usr/src/$name-$version/$name.c"
    fi
    package "$alias" "${name//_/-}-dkms" "$version-1" "$name/$version" "$tree" depend=dkms
}

make_modules() {
    local source name version
    start_packages "$1"
    for source in "$testbed"/sources/modules/*; do
        name=${source##*/}
        version=${name##*-}
        name=${name%-*}
        module "$name" "$name" "$version" "$source"
        case $name in
        bbswitch | v4l2loopback | vhba) module "$name-next" "$name" "$version.1" "$source" ;;
        esac
    done
    finish_packages
}

stage modules "$(digest_of "${BASH_SOURCE[0]}" "$here/pack.sh" "$here/packages.sh")-$(digest_below sources)" make_modules
