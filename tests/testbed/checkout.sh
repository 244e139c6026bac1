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

# in_checkout COMMAND...: runs COMMAND as the user `builder` in a fresh copy of the checkout.
# Cargo's target directory and the times of files are kept, so cargo recompiles only what changed.
in_checkout() {
    local copy=$testbed/checkout rust
    rust=$(cd "$repo" && rustc --print sysroot)
    rm -rf "$copy"
    mkdir -p "$copy" "$testbed/cargo-target"
    checkout_files | tar -C "$repo" -c --no-recursion -T - | tar -C "$copy" -x
    # The numeric id in the base root may differ from that on this machine.
    chown -R "$(stat -c %u "$testbed/base/home/builder")" "$copy" "$testbed/cargo-target"
    in_root "$testbed/base" --bind "$copy" /build --bind "$testbed/cargo-target" /opt/cargo-target \
        --bind "$testbed/vendor" /opt/cargo --bind "$rust" /opt/rust \
        runuser -u builder -- env HOME=/tmp PATH=/opt/rust/bin:/usr/bin CARGO_HOME=/opt/cargo \
        CARGO_TARGET_DIR=/opt/cargo-target CARGO_TERM_COLOR="${CARGO_TERM_COLOR-auto}" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        sh -ec 'cd /build && exec "$@"' sh "$@"
}
