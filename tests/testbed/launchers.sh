#!/bin/bash
# Stage launchers: Debian's ccache and distcc with what they need, unpacked, for stories to lay over a root.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=(ccache distcc)

# Not installed: their scripts would make users and start servers, and stories want them only where they are the subject.
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
