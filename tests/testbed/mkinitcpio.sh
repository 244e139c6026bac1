#!/bin/bash
# Stage mkinitcpio: the real mkinitcpio from a checkout of its repository: mkinitcpio.sh CHECKOUT
#
#   files/                 programs for its images, from Debian
#   package/               its files, as in Arch's package, and those in the directory mkinitcpio
#   linux-1 linux-2 …      the kernels of the stage kernels. The kernel file contains the release, by
#                          which mkinitcpio finds the modules.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/packages.sh"

checkout=${1:?usage: mkinitcpio.sh CHECKOUT}
[[ -e $checkout/mkinitcpio ]] || die "error: $checkout: not a checkout of mkinitcpio"

# Unpacked but not installed, as in the stage dracut.
# shellcheck disable=SC2016 # expanded by the inner shell
unpack_programs() {
    logged in_copy base --bind "$1" /srv/mkinitcpio bash -euc '
        apt-get -q update
        cd /tmp
        apt-get -q download busybox util-linux-extra systemd-boot-efi
        for package in *.deb; do dpkg -x "$package" /srv/mkinitcpio/files; done'
    mkdir "$1/files/usr/lib/initcpio"
    mv "$1/files/usr/bin/busybox" "$1/files/usr/lib/initcpio/"
}

# As meson.build does. Debian has some programs in /usr/sbin.
install_mkinitcpio() {
    local lib=$1/usr/lib/initcpio share=$1/usr/share
    mkdir -p "$1/usr/bin" "$lib" "$share/mkinitcpio" "$share/libalpm"
    cp "$checkout"/{mkinitcpio,lsinitcpio} "$1/usr/bin/"
    cp -r "$checkout"/{functions,init,init_functions,shutdown,install,hooks} "$lib/"
    cp "$checkout/mkinitcpio.d/hook.preset" "$share/mkinitcpio/"
    cp -r "$checkout"/libalpm/{hooks,scripts} "$share/libalpm/"
    cp -r "$here/mkinitcpio/." "$1/"
    grep -rlZ '@[A-Z_]*@' "$1" | xargs -0 sed -i -e 's|@VERSION@|41|' -e 's|@BINDIR@|/usr/bin:/usr/sbin|' \
        -e 's|@SYSCONFDIR@|/etc|' -e 's|@INITCPIO_LIBDIR@|/usr/lib/initcpio|' \
        -e 's|@INITCPIO_SYSCONFDIR@|/etc/initcpio|'
}

# named_kernel ALIAS NAME VERSION RELEASE: builds a copy of a package of the stage kernels.
named_kernel() {
    local tree=$work/$1 file offset
    mkdir "$tree"
    tar -C "$tree" -xf "$testbed/kernels/$1.pkg.tar.zst" --exclude=.PKGINFO --exclude=.MTREE
    file=$tree/usr/lib/modules/$4/vmlinuz
    offset=$(od -An -t u2 -j 526 -N 2 "$file")
    printf '%s \0' "$4" | dd of="$file" bs=1 seek="$((offset + 512))" conv=notrunc status=none
    package "$1" "$2" "$3" "$4" "$tree"
}

make_mkinitcpio() {
    local alias name version release
    mkdir "$1/files" "$1/package"
    unpack_programs "$1"
    install_mkinitcpio "$1/package"
    start_packages "$1"
    while IFS=$'\t' read -r alias name version release; do
        [[ $name == *-headers ]] || named_kernel "$alias" "$name" "$version" "$release"
    done <"$testbed/kernels/index"
    finish_packages
}

mapfile -t recipe < <(find "$here/mkinitcpio" "$checkout"/{mkinitcpio,lsinitcpio,functions,init*,install,hooks,libalpm,mkinitcpio.d} -type f | sort)
stage mkinitcpio "$(digest_of "${BASH_SOURCE[0]}" "$here/pack.sh" "$here/packages.sh" "${recipe[@]}"
)-$(digest_below base kernels)" make_mkinitcpio
