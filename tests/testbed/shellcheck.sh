#!/bin/bash
# Runs shellcheck on all shell scripts of the checkout.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$repo"
mapfile -t scripts < <(git -c safe.directory='*' grep -lE '^#!/bin/(ba)?sh|^# shellcheck shell=' -- ':!*.rs' | sort)
shellcheck "${scripts[@]}"
shellcheck --shell=bash packaging/aur/alpm-dkms/alpm-dkms.install
