#!/bin/bash
# Checks that the release is reproducible: dist.sh tarball|package
#
#   tarball    two clones of the last commit give the same tarball
#   package    two builds of the tarball, in two directories, give the same files
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/checkout.sh"
find_cargo

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# dist DIRECTORY UMASK: clones the last commit into DIRECTORY with UMASK and makes the tarball there.
dist() {
    mkdir -p "${1%/*}"
    (umask "$2" && git -c safe.directory='*' clone --quiet "$repo" "$1" && "$1/packaging/dist.sh" >/dev/null)
}

tarball() {
    local name
    name=$(release_name).tar.gz
    dist "$scratch/one" 022
    dist "$scratch/two/deeper" 077
    cmp "$scratch/one/target/dist/$name" "$scratch/two/deeper/target/dist/$name"
    say "$name: the same from two clones"
}

# build DIRECTORY: builds the package in a directory below /build and unpacks it into $scratch.
build() {
    local place=$testbed/checkout/$1 out=$scratch/$1
    mkdir -p "$place" "$out"
    cp -L "$scratch"/clone/target/dist/alpm-dkms/* "$place"
    in_build_root "/build/$1" env SOURCE_DATE_EPOCH=1700000000 CARGO_PROFILE_RELEASE_LTO=thin \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=4 makepkg --nodeps --nocheck --noconfirm >"$scratch/log" 2>&1 ||
        { tail -n 40 "$scratch/log" >&2; die "error: makepkg failed"; }
    bsdtar -xpf "$place"/*.pkg.tar.zst -C "$out"
}

package() {
    dist "$scratch/clone" 022
    rm -rf "$testbed/checkout"
    build one
    build two/deeper
    # .BUILDINFO names the directory of the build, and .MTREE has the digest of .BUILDINFO.
    diff -r --no-dereference -x .BUILDINFO -x .MTREE "$scratch/one" "$scratch/two/deeper"
    say "package: the same files from two directories"
}

case ${1-} in
tarball | package) "$1" ;;
*) die "usage: dist.sh tarball|package" ;;
esac
