# shellcheck shell=bash disable=SC2154 # variables of lib.sh and packages.sh
# Functions that build packages of kernels and headers in Arch's layout from the stage sources.

# kernel ALIAS PKGBASE VERSION RELEASE [SOURCE]: builds a kernel package. SOURCE is a directory in
# the stage sources. $extra may name a directory with more objects.
kernel() {
    local alias=$1 pkgbase=$2 version=$3 release=$4 from=$testbed/sources/${5-$2} tree=$work/$1 dir object
    dir=$tree/usr/lib/modules/$release
    mkdir -p "$dir/kernel/drivers"
    printf '%s\n' "$pkgbase" >"$dir/pkgbase"
    cp "$from/vmlinuz" "$dir/vmlinuz"
    cp "$from"/modules.builtin* "$dir/"
    for object in "$from"/objects/*.ko ${extra:+"$extra"/*.ko}; do
        zstd -q -1 "$object" -o "$dir/kernel/drivers/${object##*/}.zst"
    done
    (cd "$dir" && find kernel -name '*.ko.zst' | sed 's/\.zst$//' | sort) >"$dir/modules.order"
    package "$alias" "$pkgbase" "$version" "$release" "$tree"
}

# headers ALIAS PKGBASE VERSION RELEASE [SOURCE]: builds a headers package and writes RELEASE into
# it. Since vermagic is taken from utsrelease.h, one source serves for several releases.
headers() {
    local alias=$1 pkgbase=$2 version=$3 release=$4 tree=$work/$1 build
    build=$tree/usr/lib/modules/$release/build
    mkdir -p "${build%/*}" "$tree/usr/src"
    cp -a "$testbed/sources/${5-$2}/build" "$build"
    printf '%s\n' "$release" >"$build/include/config/kernel.release"
    printf '#define UTS_RELEASE "%s"\n' "$release" >"$build/include/generated/utsrelease.h"
    printf '#define UTS_VERSION "#1 SMP PREEMPT_DYNAMIC %s"\n' "$release" >"$build/include/generated/utsversion.h"
    if [[ $alias == *-symvers ]]; then
        printf '0x00000000\ttestbed_symbol\tvmlinux\tEXPORT_SYMBOL\t\n' >>"$build/Module.symvers"
    fi
    ln -s "../lib/modules/$release/build" "$tree/usr/src/$pkgbase"
    package "$alias" "$pkgbase-headers" "$version" "$release" "$tree"
}
