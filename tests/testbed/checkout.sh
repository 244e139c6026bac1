# shellcheck shell=bash disable=SC2154 # `repo` and `testbed` come from lib.sh
# Builds a copy of this checkout in the base root as an unprivileged user, with the host's Rust.

# checkout_files: prints the tracked files and the untracked files that are not ignored.
checkout_files() {
    git -c safe.directory='*' -C "$repo" ls-files --cached --others --exclude-standard |
        while IFS= read -r file; do
            # A deleted file is listed until the deletion is committed.
            if [[ -f $repo/$file ]]; then printf '%s\n' "$file"; fi
        done
}

# checkout_digest: prints a digest of the files that our package is built from.
checkout_digest() {
    (cd "$repo" && checkout_files | grep -Ev '^(tests|\.ci)/|^Makefile$' | sort | xargs sha256sum | sha256sum | cut -c1-16)
}

# release_name: prints the name of the release tarball, which is also that of its top directory.
release_name() { sed -n 's/^version = "\(.*\)"$/alpm-dkms-\1/p' "$repo/Cargo.toml"; }

# copy_checkout: copies the checkout to where makepkg unpacks the release tarball. Cargo's target
# directory and the times of files are kept, so cargo recompiles only what changed.
copy_checkout() {
    local source
    source=$testbed/checkout/src/$(release_name)
    rm -rf "$testbed/checkout"
    mkdir -p "$source" "$testbed/cargo-target"
    checkout_files | tar -C "$repo" -c --no-recursion -T - | tar -C "$source" -x
    ln -s /opt/cargo-target "$source/target"
}

# in_build_root DIRECTORY COMMAND...: runs COMMAND as the user `builder` in a directory below /build,
# which is $testbed/checkout.
# shellcheck disable=SC2016 # expanded by the inner shell
in_build_root() {
    local rust
    rust=$(cd "$repo" && rustc --print sysroot)
    # The numeric id in the base root may differ from that on this machine.
    chown -hR "$(stat -c %u "$testbed/base/home/builder")" "$testbed/checkout" "$testbed/cargo-target"
    in_root "$testbed/base" --bind "$testbed/checkout" /build --bind "$testbed/cargo-target" /opt/cargo-target \
        --bind "$testbed/vendor" /opt/cargo --bind "$rust" /opt/rust \
        runuser -u builder -- env HOME=/tmp PATH=/opt/rust/bin:/usr/bin CARGO_HOME=/opt/cargo \
        CARGO_TERM_COLOR="${CARGO_TERM_COLOR-auto}" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        sh -ec 'cd "$1" && shift && exec "$@"' sh "$@"
}

# in_checkout COMMAND...: runs COMMAND in a fresh copy of the checkout.
in_checkout() {
    copy_checkout
    in_build_root "/build/src/$(release_name)" "$@"
}
