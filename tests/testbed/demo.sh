#!/bin/bash
# Shows a kernel upgrade with four real modules in a copy of the stage ready: pacman's output and
# `dkms status`.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modules=(acpi-call bbswitch tp_smapi v4l2loopback)

# files STAGE ALIAS...: prints the paths of packages in the copy.
files() {
    local stage=$1 alias
    for alias in "${@:2}"; do printf '/srv/%s/%s.pkg.tar.zst\n' "$stage" "$alias"; done
}

mapfile -t before < <(files kernels linux-1 linux-headers-1; files modules "${modules[@]}")
mapfile -t upgrade < <(files kernels linux-2 linux-headers-2)

# shellcheck disable=SC2016 # expanded in the copy
in_copy ready --bind "$testbed/kernels" /srv/kernels --bind "$testbed/modules" /srv/modules bash -euc '
    step() { printf "\n\033[1m# %s\033[0m\n" "$*"; "$@"; }
    count=$1; shift
    echo "Installing a kernel, its headers and four modules."
    pacman -U --noconfirm "${@:1:count}" >/var/log/demo-first.log 2>&1 || { cat /var/log/demo-first.log; exit 1; }
    step dkms status
    step pacman -U --noconfirm "${@:count+1}"
    step dkms status
' demo "${#before[@]}" "${before[@]}" "${upgrade[@]}"
