#!/bin/bash
# Stage vendor: the sources of all crates, for builds in a root without network.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_cargo

make_vendor() {
    (cd "$repo" && cargo vendor --quiet --locked "$1/crates" >/dev/null)
    # Some crates contain files that only their owner may read.
    chmod -R a+rX "$1/crates"
    cat >"$1/config.toml" <<'EOT'
[source.crates-io]
replace-with = "vendor"

[source.vendor]
directory = "/opt/cargo/crates"

[net]
offline = true
EOT
}

stage vendor "$(digest_of "${BASH_SOURCE[0]}" "$repo/Cargo.lock")" make_vendor
