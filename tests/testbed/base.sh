#!/bin/bash
# Stage base: Debian disguised as Arch, with pacman, makepkg, libalpm and a compiler, but no dkms.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=forky     # has pacman 7.1, libalpm 16 and the kernel of `linux`
lts_suite=trixie # has the kernel of `linux-lts`

packages=(
    pacman-package-manager makepkg fakeroot libarchive-tools
    libalpm-dev libarchive-dev libcurl4-openssl-dev libgpgme-dev
    gcc make patch pkgconf kmod pahole bc bison flex perl-base
    zstd xz-utils gzip openssl gawk sed file strace diffutils util-linux ca-certificates
)

# Prints the URL of the Debian mirror of this machine.
mirror() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    apt-get indextargets --format "\$(REPO_URI)" "Codename: $codename" "Created-By: Packages" | head -n1
}

# Prints the network settings of apt on this machine.
network_settings() {
    apt-config dump --no-empty --format '%f "%v";%n' Acquire | grep -E '^Acquire::(http|https|Check)' || true
}

make_base() {
    local root=$1 url
    url=$(mirror)
    [[ -n $url ]] || die "error: apt on this machine has no mirror"
    # debootstrap of an older Debian has no script for a newer suite. The script `sid` works for
    # all.
    logged debootstrap --variant=minbase "$suite" "$root" "$url" /usr/share/debootstrap/scripts/sid

    rm -f "$root"/etc/apt/sources.list.d/*
    printf 'deb %s %s main contrib non-free\n' "$url" "$suite" "$url" "$lts_suite" >"$root/etc/apt/sources.list"
    {
        network_settings
        echo 'Acquire::Check-Valid-Until "false";'
        echo 'Acquire::Languages "none";'
        echo 'APT::Install-Recommends "false";'
    } >"$root/etc/apt/apt.conf.d/80testbed"
    printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
        'path-exclude=/usr/share/locale/*' 'path-exclude=/usr/share/info/*' >"$root/etc/dpkg/dpkg.cfg.d/80testbed"
    cat /etc/resolv.conf >"$root/etc/resolv.conf"
    logged in_root "$root" bash -euc '
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update
        apt-get -q install --yes "$@"
        apt-get clean
        useradd --create-home builder' install "${packages[@]}"
    disguise_as_arch "$root"
}

disguise_as_arch() {
    local root=$1
    rm -f "$root/etc/os-release"
    printf '%s\n' 'NAME="Arch Linux"' 'PRETTY_NAME="Arch Linux"' 'ID=arch' 'BUILD_ID=rolling' |
        tee "$root/usr/lib/os-release" >"$root/etc/os-release"
    mkdir -p "$root"/usr/share/libalpm/{hooks,scripts} "$root"/etc/pacman.d/hooks "$root/var/lib/pacman/local" \
        "$root/usr/lib/modules" "$root/usr/lib/depmod.d"
    ln -sf ../proc/self/mounts "$root/etc/mtab" # read by pacman's CheckSpace
    # Packages are not signed, and pacman downloads none.
    cat >"$root/etc/pacman.conf" <<'CONF'
[options]
HoldPkg = pacman glibc
Architecture = x86_64
CheckSpace
DisableSandbox
SigLevel = Never
LocalFileSigLevel = Never
CONF
    sed -i -e "s/^PKGEXT=.*/PKGEXT='.pkg.tar.zst'/" -e 's/^COMPRESSZST=.*/COMPRESSZST=(zstd -c -1 -T0 -q -)/' \
        "$root/etc/makepkg.conf"
}

stage base "$(digest_of "${BASH_SOURCE[0]}")" make_base
