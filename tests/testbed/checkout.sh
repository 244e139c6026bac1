# shellcheck shell=bash disable=SC2154 # `repo` and `testbed` come from lib.sh
# A copy of this checkout that an unprivileged user may build in the base root, with the host's Rust.

# checkout_files: what git knows of or would take in, as it lies here.
checkout_files() {
    git -c safe.directory='*' -C "$repo" ls-files --cached --others --exclude-standard |
        while IFS= read -r file; do
            # A file that was deleted is still listed until that is committed.
            if [[ -f $repo/$file ]]; then printf '%s\n' "$file"; fi
        done
}

# checkout_digest: one word that changes with what goes into our package, so not with the tests.
checkout_digest() {
    (cd "$repo" && checkout_files | grep -Ev '^(tests|\.ci)/|^Makefile$' | sort | xargs sha256sum | sha256sum | cut -c1-16)
}

# in_checkout COMMAND...: runs COMMAND as the user `builder` in a fresh copy of the checkout.
# What was compiled is kept from one time to the next; times of files are kept too, so cargo recognises it.
in_checkout() {
    local copy=$testbed/checkout rust
    rust=$(cd "$repo" && rustc --print sysroot)
    rm -rf "$copy"
    mkdir -p "$copy" "$testbed/cargo-target"
    checkout_files | tar -C "$repo" -c --no-recursion -T - | tar -C "$copy" -x
    # The base root's own id, which is not this machine's.
    chown -R "$(stat -c %u "$testbed/base/home/builder")" "$copy" "$testbed/cargo-target"
    in_root "$testbed/base" --bind "$copy" /build --bind "$testbed/cargo-target" /opt/cargo-target \
        --bind "$testbed/vendor" /opt/cargo --bind "$rust" /opt/rust \
        runuser -u builder -- env HOME=/tmp PATH=/opt/rust/bin:/usr/bin CARGO_HOME=/opt/cargo \
        CARGO_TARGET_DIR=/opt/cargo-target CARGO_TERM_COLOR="${CARGO_TERM_COLOR-auto}" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        sh -ec 'cd /build && exec "$@"' sh "$@"
}
