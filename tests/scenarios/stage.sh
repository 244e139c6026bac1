#!/bin/bash
# Runs scenarios with the real dkms, with alpm-dkms, or with both in turn, and writes transcripts:
# stage.sh MODE, in a root of the testbed. MODE is peer, ours, peer-ours or ours-peer.
#
# /srv/stage/MODE.list lists the scenarios. A scenario is a bash script. It begins with the kernel
# $K, an empty dkms tree, no sources and no configuration. It uses the functions below and runs
# `dkms`. For each dkms command, the transcript in /srv/stage/transcripts contains the exit code,
# the output of `dkms status`, and the changes in the trees.
set -eu

stage=/srv/stage
# The source tree, the dkms tree and the install tree.
S=/usr/src T=/var/lib/dkms L=/usr/lib/modules
# The installed kernel, the name of another one, and the running kernel and its architecture.
# shellcheck disable=SC2034 # for the scenarios
K=7.1.1-one K2=7.2.2-two R=$(uname -r) A=$(uname -m)

declare -A programs=([peer]=/opt/peer/usr/sbin/dkms [ours]=/usr/bin/dkms)

# kernel RELEASE [zst|xz|gz]: adds a kernel with fake headers. Its own modules may be compressed.
kernel() {
    local dir=$L/$1 made=$stage/kernels/$1.${2-}
    mkdir -p "$L" "$stage/kernels"
    if [[ -d $made ]]; then
        cp -a "$made" "$dir"
        return
    fi
    cp -a "$stage/kernel" "$dir"
    grep -rlZ @RELEASE@ "$dir/build" | xargs -0 sed -i "s/@RELEASE@/$1/g"
    echo .NOTPARALLEL: >>"$dir/build/Makefile" # for a fixed order of lines in logs
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

# config RELEASE LINE...: adds lines to the configuration of a kernel.
config() {
    printf '%s\n' "${@:2}" | tee -a "$L/$1/build/.config" >>"$L/$1/build/include/config/auto.conf"
}

# module NAME VERSION [LINE...]: adds a source with one object of the same name. The lines are added
# to its dkms.conf.
module() {
    conf "$1" "$2" "BUILT_MODULE_NAME[0]=\"$1\"" 'DEST_MODULE_LOCATION[0]="/kernel/drivers/misc"' 'AUTOINSTALL="yes"' \
        "${@:3}"
    objects "$1" "$2" "$1"
}

# conf NAME VERSION LINE...: writes a dkms.conf of the name, the version and these lines.
conf() {
    mkdir -p "$S/$1-$2"
    printf '%s\n' "PACKAGE_NAME=\"$1\"" "PACKAGE_VERSION=\"$2\"" "${@:3}" >"$S/$1-$2/dkms.conf"
}

# objects NAME VERSION OBJECT...: writes the Makefile and the code of these objects.
objects() {
    local dir=$S/$1-$2 object names=("${@:3}")
    mkdir -p "$dir"
    echo "obj-m := ${names[*]/%/.o}" >"$dir/Makefile"
    for object in "${names[@]}"; do code "$dir/$object.c" "$2"; done
}

# code FILE VERSION [LINE...]: writes source code. A line with #error makes the build fail.
code() {
    printf '%s\n' "/* $1 */" "MODULE_VERSION(\"$2\");" "${@:3}" >"$1"
}

# file PATH LINE...: writes a file. A file that begins with #! is executable.
file() {
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "${@:2}" >"$1"
    if [[ $2 == '#!'* ]]; then chmod 755 "$1"; fi
}

# signs RELEASE: makes a kernel check signatures, and adds a sign-file that logs its arguments.
signs() {
    config "$1" CONFIG_MODULE_SIG=y 'CONFIG_MODULE_SIG_HASH="sha256"'
    # shellcheck disable=SC2016 # for the script
    file "$L/$1/build/scripts/sign-file" '#!/bin/sh' "echo \"\$1 \$2 \$3 \${4##*/}\" >>$stage/here/signed" \
        "{ printf 'a signature\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\013'; echo '~Module signature appended~'; } >>\"\$4\""
    # dkms 3.4 does not sign in a chroot without this setting. dkms 3.2 ignores it.
    file /etc/dkms/framework.conf.d/signing.conf 'try_sign_modules=true'
}

# key FILE CERTIFICATE: creates a signing key.
key() {
    openssl req -new -x509 -nodes -days 1 -subj /CN=mine -newkey rsa:2048 -keyout "$1" -outform DER -out "$2" 2>/dev/null
}

# switch: continues with the other program, in a mode with two.
switch() {
    program=$second
}

# as_user COMMAND...: runs a command as an unprivileged user.
as_user() {
    # shellcheck disable=SC2034 # bash's dynamic scope: `dkms` below sees it
    local as=(setpriv --reuid builder --regid builder --clear-groups)
    "$@"
}

# dkms ARGUMENT...: runs a command and writes its results to the transcript.
dkms() {
    local code=0
    echo "\$ dkms $*" | tee -a "$stage/output"
    # Messages are not compared, except those that scripts read.
    "${as[@]}" timeout --kill-after=10 120 "$program" "$@" >"$stage/out" 2>"$stage/err" </dev/null || code=$?
    cat "$stage/out" "$stage/err" >>"$stage/output"
    case " $* " in *" status "* | *" --version "* | *" -V "*) sed 's/^/  | /' "$stage/out" ;; esac
    echo "  exit $code"
    write_changes
}
as=()

# Writes the changes since the last call to the transcript.
write_changes() {
    # Kernel headers are left out, and own-files and failed-log of docs/compatibility.md, which
    # always differ.
    find "$S" "$T" "$L" \( -path "$L/*/build" -o -path "$T/.*" -o -name alpm-dkms.toml -o -name '.dkms-inventory*' \) -prune -o \
        -printf '%y %p %l\t%s %T@ %m\n' | LC_ALL=C sort >"$stage/files"
    if cmp -s "$stage/files" "$stage/files.before"; then return; fi
    {
        cut -f1 "$stage/files" | sed "s|^l \(.*/build/make.log\) $T/.log/.*|f \1 |" | LC_ALL=C sort
        "$program" status 2>/dev/null | sed 's/^/status: /'
        objects_and_index
        logs
    } >"$stage/results"
    changes --old-line-format='  - %L' --new-line-format=''
    changes --old-line-format='' --new-line-format='  + %L'
    mv "$stage/files" "$stage/files.before"
    mv "$stage/results" "$stage/results.before"
}

changes() {
    diff --unchanged-line-format='' "$@" "$stage/results.before" "$stage/results" || true
}

# Prints the modinfo of each object that dkms built or installed, and modules.dep.
objects_and_index() {
    local object
    find "$T" "$L" \( -path "$L/*/build" -o -path "$L/*/kernel/fs" -o -path "$T/.*" \) -prune -o -name '*.ko*' -print |
        LC_ALL=C sort | while IFS= read -r object; do
            echo "modinfo: $object" "$(modinfo "$object" 2>&1 | sed -n 's/^\([^f].*\): */\1=/p' | tr '\n' ' ')"
        done
    grep -H . "$L"/*/modules.dep 2>/dev/null | LC_ALL=C sort || true
}

# Prints the make.log files, without date and elapsed time. The version, the number of jobs and the
# path of the kernels' directory are normalised, since they always differ. The scenario
# build/log-of-make shows them.
logs() {
    local log
    find "$T" -path "$T/.*" -prune -o -name make.log -print | LC_ALL=C sort | while IFS= read -r log; do
        # Each line begins with the name of the log. Otherwise diff would match lines of different
        # logs.
        sed -e '2s/.*/DATE/; s/^# elapsed time: ..:..:..$/# elapsed time: TIME/' \
            -e '1s/(dkms-[0-9.]*)/(VERSION)/' -e '/^# command: /s/ make -j[0-9]* / make /' \
            -e 's|\([ =]\)/lib/modules|\1/usr/lib/modules|g' -e "s|^|log of ${log#"$T/"}: |" "$log"
    done
}

# Resets the machine.
clean() {
    rm -rf "${S:?}"/* "$T" "${L:?}"/* /etc/dkms "$stage/here"
    mkdir -p "$T" /etc/dkms/framework.conf.d "$stage/here"
    # Scenarios about other distributions replace os-release, which pacman's database would override.
    rm -f /var/lib/pacman/local/ALPM_DB_VERSION
    printf '%s\n' 'NAME="Arch Linux"' 'ID=arch' | tee /usr/lib/os-release >/etc/os-release
    kernel "$K"
    rm -f "$stage"/{files,results}.before
    touch "$stage"/{files,results}.before
    write_changes >/dev/null
    : >"$stage/output"
}

run_scenario() {
    clean
    cd "$stage/here"
    # shellcheck disable=SC1090 # a scenario
    source "$1"
    echo end
}

mode=$1
program=${programs[${mode%-*}]} second=${programs[${mode#*-}]}
while IFS= read -r -u 3 scenario; do
    transcript=$stage/transcripts/$scenario.$mode
    mkdir -p "${transcript%/*}"
    # Transcripts use the letters T, S and L for the trees.
    (run_scenario "$stage/scenarios/$scenario") 2>&1 3<&- |
        sed -e "s/${R//./\\.}/RUNNING/g" -e "s|$T\>|T|g; s|$S\>|S|g; s|$L\>|L|g; s|/log/make.log:|:|" >"$transcript"
    cp "$stage/output" "$transcript.output"
done 3<"$stage/$mode.list"
