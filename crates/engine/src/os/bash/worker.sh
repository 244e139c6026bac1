#!/bin/bash
# Reads bash files for the engine, one request at a time: variables in, variables out.
#
# A request on standard input, every field ended by NUL:
#   number  names-wanted  (name value)*  ""  file*  ""
# No name at all asks for every variable that the files set.
# The answer on standard output, every field ended by NUL:
#   file*  (value NAME INDEX TEXT)* done  end NUMBER STATUS
# "file" stands for each file that is begun.
# "done" is missing when a file did not let us get that far.
#
# The files are read in a subshell, so that whatever they do ends with it. This loop is parsed before
# any file is read; no alias and no function of a file can change what it means.

# Both channels move out of the way of what a file reads and prints. Standard input becomes a
# document whose only line is read here, so it is at its end; and what is printed goes nowhere. A
# bare chroot may lack /dev/null, and bash would open that for an empty document.
exec 198<&0 199>&1 <<<""
read -r
if [[ -c /dev/null ]]; then exec >/dev/null; else exec >&2; fi

while IFS= read -r -d '' -u 198 alpm_dkms_request; do
    (
        IFS= read -r -d '' -u 198 alpm_dkms_names
        IFS=' ' read -r -a alpm_dkms_wanted <<<"$alpm_dkms_names"
        while IFS= read -r -d '' -u 198 alpm_dkms_name && [[ $alpm_dkms_name ]]; do
            IFS= read -r -d '' -u 198 alpm_dkms_value
            printf -v "$alpm_dkms_name" %s "$alpm_dkms_value"
        done
        alpm_dkms_files=()
        while IFS= read -r -d '' -u 198 alpm_dkms_file && [[ $alpm_dkms_file ]]; do
            alpm_dkms_files+=("$alpm_dkms_file")
        done
        # What programs see that the file runs, as the build will see it; our uname needs it.
        export kernelver arch module module_version
        exec 198<&-
        # Before bash 5.3, a shell without any trap becomes the program of a line `true && program`.
        trap : PWR

        declare -A alpm_dkms_known=()
        if [[ ! $alpm_dkms_names ]]; then
            for alpm_dkms_name in $(compgen -v); do alpm_dkms_known[$alpm_dkms_name]=1; done
        fi

        for alpm_dkms_file in "${alpm_dkms_files[@]}"; do
            printf 'file\0' >&199
            set -- "$alpm_dkms_file"
            # shellcheck source=/dev/null
            source "$1"
        done

        # In posix mode nothing stands before the special builtins, not even a function of that
        # name; they clear the way for the others.
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
        # DKMS_DIRECTIVE_X="NAME=value", wherever it is set. Only directives have such names; a
        # setting of framework.conf cannot be had that way.
        for alpm_dkms_index in "${!DKMS_DIRECTIVE@}"; do
            alpm_dkms_value=${!alpm_dkms_index}
            for alpm_dkms_name in "${alpm_dkms_wanted[@]}"; do
                if [[ $alpm_dkms_name == [[:upper:]]* && $alpm_dkms_value == "$alpm_dkms_name="* ]]; then
                    printf 'value\0%s\0000\0%s\0' "$alpm_dkms_name" "${alpm_dkms_value#*=}"
                fi
            done
        done >&199
        printf 'done\0' >&199
    )
    printf 'end\0%s\0%s\0' "$alpm_dkms_request" "$?" >&199
done
