# shellcheck shell=bash disable=SC2154 # `here` comes from lib.sh
# What the stages that make packages share: a work place, and the index by which stories find a package.
#
# A stage of packages holds ALIAS.pkg.tar.zst files and `index`, one line each: alias, pkgname, version, and what is in it
# (a kernel's release or a module's name/version), separated by tabs. Aliases do not change when Debian's versions do.

# start_packages OUT: packages made from here on go to OUT.
start_packages() {
    packages_out=$1
    work=$1/work
    mkdir -p "$work"
    : >"$packages_out/index"
}

finish_packages() { rm -rf "$work"; }

# package ALIAS PKGNAME VERSION CONTENT DIRECTORY [KEY=VALUE]...: makes the package and removes DIRECTORY.
package() {
    local alias=$1 pkgname=$2 version=$3 content=$4 directory=$5
    shift 5
    "$here/pack.sh" "$packages_out/$alias.pkg.tar.zst" "$pkgname" "$version" "$directory" "$@"
    printf '%s\t%s\t%s\t%s\n' "$alias" "$pkgname" "$version" "$content" >>"$packages_out/index"
    rm -rf "$directory"
}
