#!/bin/bash
# Checks every shell script of this checkout.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$repo"
mapfile -t scripts < <(git -c safe.directory='*' grep -lE '^#!/bin/(ba)?sh|^# shellcheck shell=' -- ':!*.rs' | sort)
shellcheck "${scripts[@]}"
shellcheck --shell=bash alpm-dkms.install
