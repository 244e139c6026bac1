# shellcheck shell=bash disable=SC2154 # `here` comes from lib.sh
# Functions that build packages and the index by which stories find them.
#
# A stage of packages contains ALIAS.pkg.tar.zst files and `index`, with a line for each package:
# alias, package name, version and content (the kernel release, the module id or empty), separated
# by tabs. Aliases do not depend on Debian's versions.

# start_packages OUT: writes the following packages to OUT.
start_packages() {
    packages_out=$1
    work=$1/work
    mkdir -p "$work"
    : >"$packages_out/index"
}

finish_packages() { rm -rf "$work"; }

# package ALIAS PKGNAME VERSION CONTENT DIRECTORY [KEY=VALUE]...: builds a package and removes
# DIRECTORY.
package() {
    local alias=$1 pkgname=$2 version=$3 content=$4 directory=$5
    shift 5
    "$here/pack.sh" "$packages_out/$alias.pkg.tar.zst" "$pkgname" "$version" "$directory" "$@"
    printf '%s\t%s\t%s\t%s\n' "$alias" "$pkgname" "$version" "$content" >>"$packages_out/index"
    rm -rf "$directory"
}
