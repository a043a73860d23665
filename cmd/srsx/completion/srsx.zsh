#compdef srsx
# Completion of srsx for zsh: srsx itself says what may follow.
_srsx() {
  local cur="${words[CURRENT]}"
  local -a ask found
  ask=("${(@)words[1,CURRENT-1]}")
  case "$cur" in
    --) ask+=(-) ;; # two alone would end the flags
    -*) ask+=("$cur") ;;
  esac
  found=("${(@f)$("${ask[@]}" --generate-bash-completion 2>/dev/null)}")
  [[ "$cur" == -[^-]* ]] && found=("${(@)found/#--/-}")
  compadd -a found
}
if [ "$funcstack[1]" = "_srsx" ]; then
  _srsx # autoloaded from fpath
else
  compdef _srsx srsx
fi
