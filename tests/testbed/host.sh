#!/bin/bash
# Installs the programs that the testbed needs on this machine, with apt.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# PROGRAM:PACKAGE or FILE:PACKAGE
needs=(debootstrap:debootstrap shellcheck:shellcheck zstd:zstd xz:xz-utils bsdtar:libarchive-tools gcc:gcc make:make
    dpkg-deb:dpkg unshare:util-linux patch:patch git:git fakeroot:fakeroot zsh:zsh fish:fish mandoc:mandoc
    systemd-analyze:systemd modinfo:kmod openssl:openssl qemu-system-x86_64:qemu-system-x86
    strace:strace mkfs.ext4:e2fsprogs /usr/include/stdio.h:libc6-dev /etc/ssl/certs/ca-certificates.crt:ca-certificates)

missing=()
for need in "${needs[@]}"; do
    what=${need%%:*}
    [[ -e $what ]] || command -v "$what" >/dev/null || missing+=("${need##*:}")
done
((${#missing[@]})) || exit 0

command -v apt-get >/dev/null || die "error: missing programs: please install ${missing[*]}"
[[ $EUID == 0 ]] || die "error: must be root to install ${missing[*]}"
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update </dev/null
apt-get -qq install --yes --no-install-recommends "${missing[@]}" </dev/null >/dev/null
