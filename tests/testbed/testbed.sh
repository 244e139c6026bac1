#!/bin/bash
# Builds the testbed, tests alpm-query in it, or starts a shell: testbed.sh build|alpm-query|shell
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/checkout.sh"
find_cargo

build() {
    local name
    mkdir -p "$testbed"
    # Two builds at a time would delete each other's stages.
    exec 9>"$testbed/lock"
    flock 9
    for name in host base sources power kernels modules corpus stubs launchers dracut vendor ours ready; do
        "$here/$name.sh" 9>&-
    done
    exec 9>&-
}

case ${1-} in
build) build ;;
alpm-query) # the only crate that needs libalpm 16
    in_checkout cargo clippy --frozen -p alpm-query --all-targets -- -D warnings
    # These options reuse what makepkg compiled for `check`.
    in_checkout env CARGO_PROFILE_DEV_DEBUG=0 \
        cargo test --frozen --workspace --exclude stories --bin alpm-query --test query
    ;;
shell) in_root "$testbed/ready" bash ;; # changes affect all stories
*) die "usage: testbed.sh build|alpm-query|shell" ;;
esac
