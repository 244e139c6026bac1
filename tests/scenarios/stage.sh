#!/bin/bash
# Plays scenarios with the real dkms, with ours, or with both in turn, and writes down all that can be seen of each:
# stage.sh MANNER (in a root of the testbed; MANNER is peer, ours, peer-ours or ours-peer)
#
# The scenarios of a manner are listed in /srv/stage/MANNER.list. A scenario is a piece of bash. It begins with an empty dkms tree, no sources, no configuration and the kernel $K,
# prepares with the functions below what it needs, and runs `dkms` as a user would. After each dkms command the
# transcript in /srv/stage/transcripts has its exit code, what `dkms status` says now, and what changed in the trees.
set -eu

stage=/srv/stage
# The trees, as dkms-users know them.
S=/usr/src T=/var/lib/dkms L=/usr/lib/modules
# A kernel that is there from the beginning, another one's name, and the kernel and the architecture of this machine.
# shellcheck disable=SC2034 # for the scenarios
K=7.1.1-one K2=7.2.2-two R=$(uname -r) A=$(uname -m)

declare -A programs=([peer]=/opt/peer/usr/sbin/dkms [ours]=/usr/bin/dkms)

# kernel RELEASE [zst|xz|gz]: a kernel with headers that "compile" in a moment, its own modules compressed or not.
kernel() {
    local dir=$L/$1 made=$stage/kernels/$1.${2-}
    mkdir -p "$L" "$stage/kernels"
    if [[ -d $made ]]; then
        cp -a "$made" "$dir"
        return
    fi
    cp -a "$stage/kernel" "$dir"
    grep -rlZ @RELEASE@ "$dir/build" | xargs -0 sed -i "s/@RELEASE@/$1/g"
    echo .NOTPARALLEL: >>"$dir/build/Makefile" # or the order of lines in logs is a matter of luck
    case ${2-} in
    zst) zstd -q --rm "$dir/kernel/fs/fake.ko" ;;
    xz) xz --check=crc32 "$dir/kernel/fs/fake.ko" ;;
    gz) gzip "$dir/kernel/fs/fake.ko" ;;
    esac
    if [[ ${2-} ]]; then config "$1" CONFIG_MODULE_COMPRESS=y "$(compression "$2")"; fi
    touch "$dir/modules.builtin.modinfo"
    depmod -a "$1"
    cp -a "$dir" "$made"
}

compression() {
    case $1 in
    zst) echo CONFIG_MODULE_COMPRESS_ZSTD=y ;;
    xz) echo CONFIG_MODULE_COMPRESS_XZ=y ;;
    gz) echo CONFIG_MODULE_COMPRESS_GZIP=y ;;
    esac
}

# config RELEASE LINE...: adds to a kernel's configuration.
config() {
    printf '%s\n' "${@:2}" | tee -a "$L/$1/build/.config" >>"$L/$1/build/include/config/auto.conf"
}

# module NAME VERSION [LINE...]: a source with one object of that name; the lines are added to its dkms.conf.
module() {
    conf "$1" "$2" "BUILT_MODULE_NAME[0]=\"$1\"" 'DEST_MODULE_LOCATION[0]="/kernel/drivers/misc"' 'AUTOINSTALL="yes"' \
        "${@:3}"
    objects "$1" "$2" "$1"
}

# conf NAME VERSION LINE...: a source's whole dkms.conf, but for the name and the version, which go before.
conf() {
    mkdir -p "$S/$1-$2"
    printf '%s\n' "PACKAGE_NAME=\"$1\"" "PACKAGE_VERSION=\"$2\"" "${@:3}" >"$S/$1-$2/dkms.conf"
}

# objects NAME VERSION OBJECT...: what the source makes.
objects() {
    local dir=$S/$1-$2 object names=("${@:3}")
    mkdir -p "$dir"
    echo "obj-m := ${names[*]/%/.o}" >"$dir/Makefile"
    for object in "${names[@]}"; do code "$dir/$object.c" "$2"; done
}

# code FILE VERSION [LINE...]: source code; #error in it breaks the build.
code() {
    printf '%s\n' "/* $1 */" "MODULE_VERSION(\"$2\");" "${@:3}" >"$1"
}

# file PATH LINE...: writes a file; one that begins with #! can be run.
file() {
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "${@:2}" >"$1"
    if [[ $2 == '#!'* ]]; then chmod 755 "$1"; fi
}

# signs RELEASE: a kernel that checks signatures, with a sign-file that notes what it is called with.
signs() {
    config "$1" CONFIG_MODULE_SIG=y 'CONFIG_MODULE_SIG_HASH="sha256"'
    # shellcheck disable=SC2016 # for the script
    file "$L/$1/build/scripts/sign-file" '#!/bin/sh' "echo \"\$1 \$2 \$3 \${4##*/}\" >>$stage/here/signed" \
        "{ printf 'a signature\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\013'; echo '~Module signature appended~'; } >>\"\$4\""
    # dkms 3.4 does not sign in a chroot, where scenarios play, unless it is told to; 3.2 does not ask.
    file /etc/dkms/framework.conf.d/signing.conf 'try_sign_modules=true'
}

# key FILE CERTIFICATE: a key that somebody has already.
key() {
    openssl req -new -x509 -nodes -days 1 -subj /CN=mine -newkey rsa:2048 -keyout "$1" -outform DER -out "$2" 2>/dev/null
}

# switch: from here on the other program, if two play in turn.
switch() {
    program=$second
}

# as_user COMMAND...: not as root.
as_user() {
    # shellcheck disable=SC2034 # bash's dynamic scope: `dkms` below sees it
    local as=(setpriv --reuid builder --regid builder --clear-groups)
    "$@"
}

# dkms ARGUMENT...: one command, and all that can be seen of it.
dkms() {
    local code=0
    echo "\$ dkms $*" | tee -a "$stage/said"
    # What is said is for people, and not compared but where other programs read it.
    "${as[@]}" timeout --kill-after=10 120 "$program" "$@" >"$stage/out" 2>"$stage/err" </dev/null || code=$?
    cat "$stage/out" "$stage/err" >>"$stage/said"
    case " $* " in *" status "* | *" --version "* | *" -V "*) sed 's/^/  | /' "$stage/out" ;; esac
    echo "  exit $code"
    look
}
as=()

# Writes down what differs from the last time.
look() {
    # Of no interest: kernels' headers, and what always differs (own-files, failed-log in docs/compatibility.md).
    find "$S" "$T" "$L" \( -path "$L/*/build" -o -path "$T/.*" -o -name alpm-dkms.toml \) -prune -o \
        -printf '%y %p %l\t%s %T@ %m\n' | LC_ALL=C sort >"$stage/files"
    if cmp -s "$stage/files" "$stage/files.before"; then return; fi
    {
        cut -f1 "$stage/files" | sed "s|^l \(.*/build/make.log\) $T/.log/.*|f \1 |" | LC_ALL=C sort
        "$program" status 2>/dev/null | sed 's/^/status: /'
        placed
        logs
    } >"$stage/seen"
    changes --old-line-format='  - %L' --new-line-format=''
    changes --old-line-format='' --new-line-format='  + %L'
    mv "$stage/files" "$stage/files.before"
    mv "$stage/seen" "$stage/seen.before"
}

changes() {
    diff --unchanged-line-format='' "$@" "$stage/seen.before" "$stage/seen" || true
}

# What modinfo says of each object that dkms built or placed, and the index that names those.
placed() {
    local object
    find "$T" "$L" \( -path "$L/*/build" -o -path "$L/*/kernel/fs" -o -path "$T/.*" \) -prune -o -name '*.ko*' -print |
        LC_ALL=C sort | while IFS= read -r object; do
            echo "modinfo: $object" "$(modinfo "$object" 2>&1 | sed -n 's/^\([^f].*\): */\1=/p' | tr '\n' ' ')"
        done
    grep -H . "$L"/*/modules.dep 2>/dev/null | LC_ALL=C sort || true
}

# The logs of make, but for the date and the time that it took; and but for what always differs, which the scenario
# build/log-of-make shows: the version, the number of jobs, and which way round the kernels' directory is named.
logs() {
    local log
    find "$T" -path "$T/.*" -prune -o -name make.log -print | LC_ALL=C sort | while IFS= read -r log; do
        # Each line with the log's own name, or `diff` would pair lines of one with those of another.
        sed -e '2s/.*/DATE/; s/^# elapsed time: ..:..:..$/# elapsed time: TIME/' \
            -e '1s/(dkms-[0-9.]*)/(VERSION)/' -e '/^# command: /s/ make -j[0-9]* / make /' \
            -e 's|\([ =]\)/lib/modules|\1/usr/lib/modules|g' -e "s|^|log of ${log#"$T/"}: |" "$log"
    done
}

# A machine on which nothing happened yet.
clean() {
    rm -rf "${S:?}"/* "$T" "${L:?}"/* /etc/dkms "$stage/here"
    mkdir -p "$T" /etc/dkms/framework.conf.d "$stage/here"
    printf '%s\n' 'NAME="Arch Linux"' 'ID=arch' | tee /usr/lib/os-release >/etc/os-release
    kernel "$K"
    rm -f "$stage"/{files,seen}.before
    touch "$stage"/{files,seen}.before
    look >/dev/null
    : >"$stage/said"
}

play() {
    clean
    cd "$stage/here"
    # shellcheck disable=SC1090 # a scenario
    source "$1"
    echo end
}

manner=$1
program=${programs[${manner%-*}]} second=${programs[${manner#*-}]}
while IFS= read -r -u 3 scenario; do
    transcript=$stage/transcripts/$scenario.$manner
    mkdir -p "${transcript%/*}"
    # T, S and L, as in the documents of dkms.
    (play "$stage/scenarios/$scenario") 2>&1 3<&- |
        sed -e "s/${R//./\\.}/RUNNING/g" -e "s|$T\>|T|g; s|$S\>|S|g; s|$L\>|L|g; s|/log/make.log:|:|" >"$transcript"
    cp "$stage/said" "$transcript.said"
done 3<"$stage/$manner.list"
