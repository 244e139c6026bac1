#!/bin/bash
# Stage launchers: Debian's ccache and distcc with their dependencies, unpacked.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=(ccache distcc)

# Unpacked but not installed, because their scripts create users and start servers. Stories copy
# them into a root.
# shellcheck disable=SC2016 # expanded by the inner shell
make_launchers() {
    mkdir "$1/files"
    logged in_copy base --bind "$1" /srv/launchers bash -euc '
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update
        apt-get -q install --yes --download-only "$@"
        for package in /var/cache/apt/archives/*.deb; do
            dpkg -x "$package" /srv/launchers/files
        done' unpack "${packages[@]}"
}

stage launchers "$(digest_of "${BASH_SOURCE[0]}")-$(digest_below base)" make_launchers
