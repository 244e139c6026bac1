# Tab completion of dkms for fish. The candidates come from `dkms __complete`.

function __dkms_offers
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for offer in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
        switch $offer
            case \tfiles
                __fish_complete_path "$current"
            case \tdirs
                __fish_complete_directories "$current"
            case '*'
                echo $offer
        end
    end
end
complete -c dkms -f -a '(__dkms_offers)'
