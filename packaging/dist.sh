#!/bin/bash
# Writes the release tarball of the last commit, and the files for the AUR, to target/dist. The
# PKGBUILD of the release gets the checksum of the tarball.
set -euo pipefail
umask 022
export LC_ALL=C

cd "$(dirname "$0")/.."
name=alpm-dkms-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
out=target/dist
rm -rf "$out"
mkdir -p "$out"

# Two checkouts of a commit give the same tarball: git archive sorts the files and gives them the time of the
# commit, and gzip -n stores no time. The user's tar.umask would change the permissions.
git -c tar.umask=0022 archive --prefix="$name/" HEAD | gzip -9n >"$out/$name.tar.gz"
sum=$(sha256sum "$out/$name.tar.gz" | cut -d' ' -f1)

cp -rL packaging/aur/. "$out"
ln -s "../$name.tar.gz" -t "$out/alpm-dkms"
sed -i "s/^sha256sums=(SKIP)$/sha256sums=($sum)/" "$out/alpm-dkms/PKGBUILD"
sed -i "s/\(sha256sums = \)SKIP$/\1$sum/" "$out/alpm-dkms/.SRCINFO"
grep -q "$sum" "$out/alpm-dkms/PKGBUILD"
grep -q "$sum" "$out/alpm-dkms/.SRCINFO"
git status --short --untracked-files=no | sed 's/^/warning: not in the tarball, because it is not committed:/' >&2
echo "$out/$name.tar.gz"
