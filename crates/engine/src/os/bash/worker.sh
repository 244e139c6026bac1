#!/bin/bash
# Evaluates bash files for the engine, one request at a time, and returns the variables they set.
#
# A request on standard input, each field terminated by NUL:
#   number  names-wanted  directory  directives  (name value)*  ""  file*  ""
# An empty names-wanted field requests every variable that the files set. The directives field is
# empty if no file contains DKMS_DIRECTIVE.
# The reply on standard output, each field terminated by NUL:
#   file*  (value NAME INDEX TEXT)* done  end NUMBER STATUS
# "file" is written before each file is evaluated. "done" is missing if a file ended the subshell.
#
# The files are evaluated in a subshell, so their effects end with it. This loop is parsed before
# any file is evaluated, so a file's aliases and functions cannot change its meaning.
#
# As in dkms, the files are sourced by a function, in which `local` is not an error.

# Move the protocol to descriptors that the files do not use. Give the files an empty standard input
# and discard their output. A bare chroot may lack /dev/null, which bash opens for an empty
# here-document. The input therefore consists of one line, which is read here.
exec 198<&0 199>&1 <<<""
read -r
if [[ -c /dev/null ]]; then exec >/dev/null; else exec >&2; fi

# Evaluates the files and returns the variables. Their local variables exist until it returns.
alpm_dkms_evaluate() {
    for alpm_dkms_file in "${alpm_dkms_files[@]}"; do
        printf 'file\0' >&199
        set -- "$alpm_dkms_file"
        # shellcheck source=/dev/null
        source "$1"
    done

    # In posix mode, functions cannot override special builtins such as set, trap and unset.
    # These are then used to remove the overrides of other builtins.
    POSIXLY_CORRECT=1
    set +euvx
    trap - DEBUG ERR
    unset -f compgen declare mapfile printf
    [[ $alpm_dkms_names ]] || mapfile -t alpm_dkms_wanted <<<"$(compgen -v)"
    for alpm_dkms_name in "${alpm_dkms_wanted[@]}"; do
        [[ $alpm_dkms_name != alpm_dkms_* && ! ${alpm_dkms_known[$alpm_dkms_name]-} ]] || continue
        declare -n alpm_dkms_value=$alpm_dkms_name
        for alpm_dkms_index in "${!alpm_dkms_value[@]}"; do
            printf 'value\0%s\0%s\0%s\0' "$alpm_dkms_name" "$alpm_dkms_index" \
                "${alpm_dkms_value[$alpm_dkms_index]}"
        done
        unset -n alpm_dkms_value
    done >&199
    # Return the values of DKMS_DIRECTIVE_X="NAME=value", set by a file or in the environment.
    # NAME must be in upper case: settings in framework.conf cannot be overridden this way.
    # Expanding the prefix takes 0.2 s if a file has sourced a kernel configuration, which sets 7,000
    # variables. It is skipped if no file mentions the prefix and the environment has no such variable.
    [[ $alpm_dkms_directives ]] && for alpm_dkms_index in "${!DKMS_DIRECTIVE@}"; do
        alpm_dkms_value=${!alpm_dkms_index}
        for alpm_dkms_name in "${alpm_dkms_wanted[@]}"; do
            if [[ $alpm_dkms_name == [[:upper:]]* && $alpm_dkms_value == "$alpm_dkms_name="* ]]; then
                printf 'value\0%s\0000\0%s\0' "$alpm_dkms_name" "${alpm_dkms_value#*=}"
            fi
        done
    done >&199
    printf 'done\0' >&199
}

# A function of dkms that a dkms.conf may call: prints the directory in which the distribution
# installs an object whose DEST_MODULE_LOCATION is $1. Programs do not inherit it.
override_dest_module_location() {
    printf '%s\n' "${alpm_dkms_destination:-$1}"
}

while IFS= read -r -d '' -u 198 alpm_dkms_request; do
    (
        IFS= read -r -d '' -u 198 alpm_dkms_names
        # shellcheck disable=SC2206 # names contain no pattern
        alpm_dkms_wanted=($alpm_dkms_names)
        IFS= read -r -d '' -u 198 alpm_dkms_directory
        IFS= read -r -d '' -u 198 alpm_dkms_directives
        cd -- "$alpm_dkms_directory" 2>&- || cd /
        while IFS= read -r -d '' -u 198 alpm_dkms_name && [[ $alpm_dkms_name ]]; do
            IFS= read -r -d '' -u 198 alpm_dkms_value
            printf -v "$alpm_dkms_name" %s "$alpm_dkms_value"
        done
        alpm_dkms_files=()
        while IFS= read -r -d '' -u 198 alpm_dkms_file && [[ $alpm_dkms_file ]]; do
            alpm_dkms_files+=("$alpm_dkms_file")
        done
        alpm_dkms_directives+=${!DKMS_DIRECTIVE@}
        # Export these to programs that a file runs, as in a build. The uname wrapper needs them.
        export kernelver arch module module_version
        exec 198<&-
        # Set a trap, because before bash 5.3 a shell without traps replaces itself with `program`
        # if the last line of a file is `true && program`.
        trap : PWR

        declare -A alpm_dkms_known=()
        if [[ ! $alpm_dkms_names ]]; then
            for alpm_dkms_name in $(compgen -v); do alpm_dkms_known[$alpm_dkms_name]=1; done
        fi

        alpm_dkms_evaluate
    )
    printf 'end\0%s\0%s\0' "$alpm_dkms_request" "$?" >&199
done
