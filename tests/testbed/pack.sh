#!/bin/bash
# Packs a directory into a pacman package: pack.sh FILE NAME VERSION DIRECTORY [KEY=VALUE]...
#
# KEY=VALUE are lines of .PKGINFO (depend, conflict, provides, replaces, backup). A file .INSTALL in
# DIRECTORY becomes the install script. This is much faster than makepkg.
set -euo pipefail
umask 022

file=$(realpath "$1") name=$2 version=$3 directory=$4
shift 4

cd "$directory"
{
    printf '%s = %s\n' pkgname "$name" pkgbase "$name" pkgver "$version" pkgdesc "testbed: $name" \
        url https://example.org builddate 1700000000 packager 'The testbed <testbed@example.org>' \
        size "$(du -sb . | cut -f1)" arch any
    for line in "$@"; do
        printf '%s = %s\n' "${line%%=*}" "${line#*=}"
    done
} >.PKGINFO

# pacman expects the metadata files at the start of the archive.
mapfile -t dots < <(find . -maxdepth 1 -type f -name '.[A-Z]*' ! -name .MTREE -printf '%P\n' | sort)
mapfile -t tops < <(find . -mindepth 1 -maxdepth 1 ! -name '.*' -printf '%P\n' | sort)
owned=(--uid 0 --gid 0 --uname root --gname root)
bsdtar -c -f - --format=mtree --options='!all,use-set,type,uid,gid,mode,time,size,sha256,link' "${owned[@]}" \
    "${dots[@]}" "${tops[@]}" | gzip -1 -n >.MTREE
bsdtar -c -f - "${owned[@]}" .MTREE "${dots[@]}" "${tops[@]}" | zstd -q -1 -T0 -f -o "$file"
rm .PKGINFO .MTREE
