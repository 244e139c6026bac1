# shellcheck shell=bash
# Functions that the stages of the testbed share: paths, digests, and running commands in a root.
#
# A stage is a script here and a directory in $testbed. The script returns at once unless its recipe
# (the script and the files it reads) or a stage that it depends on has changed.

set -euo pipefail
umask 022
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
testbed=${TESTBED:-$repo/target/testbed}

say() { printf 'testbed: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# digest_of FILE...: prints a digest of the contents.
digest_of() { cat -- "$@" | sha256sum | cut -c1-16; }

# digest_below STAGE...: prints a digest that changes when one of these stages is built again.
digest_below() { (cd "$testbed" && digest_of "${@/%/.digest}"); }

# stage NAME DIGEST MAKE: calls MAKE with an empty directory unless NAME was built from DIGEST.
# The digest is written last, so that an interrupted stage is built again.
stage() {
    local name=$1 digest=$2 make=$3 start=$SECONDS
    if [[ -f $testbed/$name.digest && $(<"$testbed/$name.digest") == "$digest" ]]; then
        return
    fi
    [[ $EUID == 0 ]] || die "error: $name: must be root to build this stage"
    say "building $name"
    stage_log=$testbed/$name.log
    : >"$stage_log"
    # A story that was killed may have left /dev mounted here.
    rm -rf --one-file-system "${testbed:?}/$name" "$testbed/$name.digest"
    mkdir -p "$testbed/$name"
    # A failing command ends the script.
    trap 'tail -n 40 "$stage_log" >&2; say "error: stage failed; see $stage_log"' EXIT
    "$make" "$testbed/$name"
    trap - EXIT
    printf '%s\n' "$digest" >"$testbed/$name.digest"
    say "built $name in $((SECONDS - start)) s"
}

# logged COMMAND...: runs COMMAND and appends its output to the log of the stage.
logged() { "$@" >>"$stage_log" 2>&1 </dev/null; }

# in_root ROOT [--bind FROM TO]... COMMAND...: runs COMMAND in ROOT with a clean environment.
# A private mount namespace ensures that nothing stays mounted. ROOT becomes a mount point because
# pacman looks up the file system that it writes to.
# shellcheck disable=SC2016 # expanded by the inner shell
in_root() {
    unshare --mount --propagation private bash -euc '
        root=$1; shift
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --rbind /sys "$root/sys"
        while [[ ${1-} == --bind ]]; do
            mkdir -p "$root$3"
            mount --rbind "$2" "$root$3"
            shift 3
        done
        exec env -i HOME=/root LC_ALL=C TERM="${TERM-dumb}" PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"
    ' in_root "$@"
}

# find_cargo: adds rustup's directory to PATH unless cargo is already in PATH.
find_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || die "error: cargo: not found in PATH; please install Rust"
}

# in_copy STAGE [--bind FROM TO]... COMMAND...: as in_root, in a temporary copy of STAGE.
# shellcheck disable=SC2016 # expanded by the inner shell
in_copy() {
    local copy=$testbed/copy
    mkdir -p "$copy"
    export -f in_root
    unshare --mount --propagation private bash -euc '
        lower=$1 copy=$2; shift 2
        mount -t tmpfs copy "$copy"
        mkdir "$copy"/{upper,work,root}
        mount -t overlay -o "lowerdir=$lower,upperdir=$copy/upper,workdir=$copy/work" copy "$copy/root"
        in_root "$copy/root" "$@"
    ' in_copy "$testbed/$1" "$copy" "${@:2}"
}
