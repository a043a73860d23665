# Completion of srsx for fish: srsx itself says what may follow.
function __srsx_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    switch $cur
        case -- # two alone would end the flags
            set -a words -
        case '-*'
            set -a words $cur
    end
    set -l found (command srsx $words[2..-1] --generate-bash-completion 2>/dev/null)
    if string match -qr '^-[^-]' -- $cur
        set found (string replace -r '^--' - -- $found)
    end
    printf '%s\n' $found
end
complete -c srsx -f -a '(__srsx_complete)'
