# Completion of pkramctl, pkramfs, mkfs.pkramfs and fsck.pkramfs for bash.
# The programs' own --help says which commands and options there are.

# Options that `PROGRAM [COMMAND] --help` lists.
_pkramfs_options() {
  "$@" --help 2>/dev/null |
    sed -nE 's/^  (-[^ =]+).*/\1/p' | tr ',' '\n' | grep -E '^--?[a-zA-Z]'
}

# Commands of `pkramctl --help`.
_pkramfs_commands() {
  "$1" --help 2>/dev/null | awk 'tolower($1) ~ /^subcommands:/ { on = 1; next } on && NF { print $1 }'
}

# Mount options of `pkramfs --help`, with their equals signs.
_pkramfs_mount_options() {
  "$1" --help 2>/dev/null |
    awk '/^Mount options/ { on = 1; next } /^Example/ { on = 0 } on && /^  [a-z]/ { print $1 }' |
    sed -E 's/=.*/=/'
}

# Regions by name, and the directories on which some are mounted.
_pkramfs_regions() {
  pkramctl list 2>/dev/null | awk 'NR > 1 {
    sub("^/dev/shm/", "", $1); print $1
    for (i = 2; i <= NF; ++i) if ($i ~ /^\//) print $i }'
}

_pkramfs_files() {
  local IFS=$'\n'
  COMPREPLY+=($(compgen -f -- "$cur"))
  compopt -o filenames 2>/dev/null
}

_pkramfs() {
  local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
  local command='' word i
  COMPREPLY=()
  if [ "${program##*/}" = pkramctl ]; then
    for ((i = 1; i < COMP_CWORD; ++i)); do
      word=${COMP_WORDS[i]}
      [[ $word == -* ]] || { command=$word; break; }
    done
    if [ -z "$command" ] && [[ $cur != -* ]]; then
      COMPREPLY=($(compgen -W "$(_pkramfs_commands "$program")" -- "$cur"))
      return
    fi
  fi
  if [ "$previous" = -o ]; then
    # The last of several options, with commas between them.
    local done=''
    [[ $cur != *,* ]] || done=${cur%,*},
    COMPREPLY=($(compgen -P "$done" -W "$(_pkramfs_mount_options pkramfs)" -- "${cur##*,}"))
    compopt -o nospace 2>/dev/null
    return
  fi
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$(_pkramfs_options "$program" $command)" -- "$cur"))
    return
  fi
  COMPREPLY=($(compgen -W "$(_pkramfs_regions)" -- "$cur"))
  _pkramfs_files
}

complete -F _pkramfs pkramctl pkramfs mkfs.pkramfs fsck.pkramfs
