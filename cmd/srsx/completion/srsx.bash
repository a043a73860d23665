# Completion of srsx for bash: srsx itself says what may follow.
_srsx() {
  local cur="${COMP_WORDS[COMP_CWORD]}" found
  local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  case "$cur" in
    --) words+=(-) ;; # two alone would end the flags
    -*) words+=("$cur") ;;
  esac
  found=$("${words[@]}" --generate-bash-completion 2>/dev/null)
  [[ "$cur" == -[^-]* ]] && found="${found//--/-}"
  COMPREPLY=($(compgen -W "$found" -- "$cur"))
}
complete -F _srsx srsx
