# Tab completion of dkms for bash. The candidates come from `dkms __complete`.
# shellcheck shell=bash

_dkms() {
    local line=${COMP_LINE:0:COMP_POINT} current words offers offer begin
    # Split only at blanks: COMP_WORDS is also split at the = of --kernelver=7.2.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    COMPREPLY=()
    mapfile -t offers < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    for offer in "${offers[@]}"; do
        case $offer in
        $'\tfiles') compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        $'\tdirs') compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        *) COMPREPLY+=("${offer%%$'\t'*}") ;;
        esac
    done
    # If = and : are word breaks, readline replaces only the text after the last of them.
    for begin in '=' ':'; do
        if [[ $COMP_WORDBREAKS == *$begin* && $current == *$begin* ]]; then
            COMPREPLY=("${COMPREPLY[@]#"${current%"$begin"*}$begin"}")
        fi
    done
}
complete -F _dkms dkms
