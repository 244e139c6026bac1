#!/bin/bash
# Builds the testbed, stage by stage, and runs things in it: testbed.sh build|alpm-query|shell
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/checkout.sh"
find_cargo

build() {
    local name
    mkdir -p "$testbed"
    # One at a time: two builders would tear each other's stages down.
    exec 9>"$testbed/lock"
    flock 9
    for name in host base sources kernels modules corpus stubs launchers dracut vendor ours ready; do
        "$here/$name.sh" 9>&-
    done
    exec 9>&-
}

case ${1-} in
build) build ;;
alpm-query) # the one crate that needs libalpm 16
    in_checkout cargo clippy --frozen -p alpm-query --all-targets -- -D warnings
    # Chosen such that what makepkg compiled is used again.
    in_checkout cargo test --frozen --release --workspace --exclude stories --bin alpm-query
    ;;
shell) in_root "$testbed/ready" bash ;; # changes what stories start from; only for looking around
*) die "usage: testbed.sh build|alpm-query|shell" ;;
esac
