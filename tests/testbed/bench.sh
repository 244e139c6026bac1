#!/bin/bash
# Measures a kernel upgrade with all modules of the testbed: our hooks, and the real dkms's autoinstall beside them.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# upgrade STAGE AFTER: seconds that the upgrade takes in a copy of STAGE, with what AFTER (hooks, peer) does behind each transaction.
upgrade() {
    # shellcheck disable=SC2016 # expanded in the copy
    in_copy "$1" --bind "$testbed/kernels" /srv/kernels --bind "$testbed/modules" /srv/modules bash -euc '
        exec 3>&1 >/var/log/bench.log 2>&1
        kernel() { echo "/srv/kernels/linux-$1.pkg.tar.zst" "/srv/kernels/linux-headers-$1.pkg.tar.zst"; }
        release() { awk -F"\t" -v alias="linux-$1" "\$1 == alias { print \$4 }" /srv/kernels/index; }
        hooks() { :; }
        mkdir -p /var/lib/dkms
        peer() {
            for conf in /usr/src/*/dkms.conf; do
                module=${conf%/dkms.conf} module=${module##*/}
                /opt/peer/usr/sbin/dkms add "${module%-*}/${module##*-}" || true
            done
            /opt/peer/usr/sbin/dkms autoinstall -k "$1"
        }
        modules=$(ls /srv/modules/*.pkg.tar.zst | grep -v -- -next)
        pacman -U --noconfirm --nodeps --nodeps $(kernel 1) $modules
        "$1" "$(release 1)"
        start=$EPOCHREALTIME
        pacman -U --noconfirm $(kernel 2)
        "$1" "$(release 2)"
        awk -v from="$start" -v to="$EPOCHREALTIME" "BEGIN { printf \"%.1f s\n\", to - from }" >&3
    ' upgrade "$2"
}

printf 'kernel upgrade, our hooks:            %s\n' "$(upgrade ready hooks)"
printf 'kernel upgrade, then dkms autoinstall: %s\n' "$(upgrade bare peer)"
