# shellcheck shell=bash
# What the stages of the testbed share: where things are, the cache, the way into a root.
#
# A stage is one script here and one directory below $testbed. It is made again when its recipe (the script
# and what it reads) or a stage below it changed; otherwise its script returns at once.

set -euo pipefail
umask 022
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
testbed=${TESTBED:-$repo/target/testbed}

say() { printf 'testbed: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# digest_of FILE...: one word that changes with the files' contents.
digest_of() { cat -- "$@" | sha256sum | cut -c1-16; }

# digest_below STAGE...: one word that changes when one of those stages is made again.
digest_below() { (cd "$testbed" && digest_of "${@/%/.digest}"); }

# stage NAME DIGEST MAKE: calls MAKE with an empty directory unless NAME was already made from DIGEST.
# The digest is written last, so a stage that was interrupted is made again.
stage() {
    local name=$1 digest=$2 make=$3 start=$SECONDS
    if [[ -f $testbed/$name.digest && $(<"$testbed/$name.digest") == "$digest" ]]; then
        return
    fi
    [[ $EUID == 0 ]] || die "making $name needs root"
    say "making $name"
    stage_log=$testbed/$name.log
    : >"$stage_log"
    rm -rf "${testbed:?}/$name" "$testbed/$name.digest"
    mkdir -p "$testbed/$name"
    # A failing command ends the script; what it said is shown then.
    trap 'tail -n 40 "$stage_log" >&2; say "failed, see $stage_log"' EXIT
    "$make" "$testbed/$name"
    trap - EXIT
    printf '%s\n' "$digest" >"$testbed/$name.digest"
    say "made $name in $((SECONDS - start)) s"
}

# logged COMMAND...: runs COMMAND within a stage; what it says goes to the stage's log.
logged() { "$@" >>"$stage_log" 2>&1 </dev/null; }

# in_root ROOT [--bind FROM TO]... COMMAND...: runs COMMAND in ROOT with a clean environment.
# Everything is mounted in a namespace of its own, so nothing stays mounted however the command ends.
# ROOT becomes a mount point, because pacman wants to find the file system it writes to.
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

# find_cargo: cargo and rustc may be in PATH or where rustup puts them.
find_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || die "please install Rust: cargo is not in PATH"
}

# in_copy STAGE [--bind FROM TO]... COMMAND...: as in_root, in a copy of STAGE that is forgotten afterwards.
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
