#!/bin/bash
# Runs cargo-mutants on a copy of this checkout, with the settings in .cargo/mutants.toml.
# Usage: mutants.sh [FILE...], with files below crates/engine/src.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/checkout.sh"

# The code that decides on removals or carries them out, places objects, and keeps the journal, the inventory
# and the list of pending work.
((${#})) || set -- plan/{removals,successors,transactions}.rs installing/{place,uninstall,rivals}.rs \
    dkms_tree/{journal,inventory,placed,pending}.rs facts/transactions.rs \
    act/{installer,pending,sweep,durability}.rs

# Builds hide the files in /tmp, where cargo-mutants would copy the checkout and its target directory to.
mutants=$repo/target/mutants
tools=$repo/target/cargo-tools
if [[ ! -x $tools/bin/cargo-mutants ]]; then
    say "installing cargo-mutants"
    cargo install --quiet --locked --root "$tools" cargo-mutants
fi
mkdir -p "$mutants/source"
# The target directory of the copy stays, so that only what changed is compiled again.
find "$mutants/source" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
checkout_files | tar -C "$repo" -c --no-recursion -T - | tar -C "$mutants/source" -x
cd "$mutants/source"
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1
# Tests of the engine run this program.
cargo build --quiet --package dkms-confine
# cargo-mutants would run the unchanged tests only in the package of the changed files. The arguments
# are those in .cargo/mutants.toml.
cargo test --quiet --package dkms-engine --package dkms-cli --lib --test runs --test fsyncs -- \
    --include-ignored --skip _speed
PATH=$tools/bin:$PATH cargo mutants --in-place --output "$mutants" --no-shuffle --baseline skip --timeout 900 \
    "${@/#/--file=crates/engine/src/}"
