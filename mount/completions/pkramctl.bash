# Completion of pkramctl, pkramfs, mkfs.pkramfs and fsck.pkramfs for bash.
# The programs' own --help says which commands and options there are.

# Options that `PROGRAM [COMMAND] --help` lists.
_pkramfs_options() {
  "$@" --help 2>/dev/null |
    sed -nE 's/^  (-[^ =]+).*/\1/p' | tr ',' '\n' | grep -E '^--?[a-zA-Z]'
}

# Commands of `pkramctl --help`.
_pkramfs_commands() {
  pkramctl --help 2>/dev/null |
    awk 'tolower($1) ~ /^subcommands:/ { on = 1; next } on && NF { print $1 }'
}

# Mount options of `pkramfs --help`, with their equals signs.
_pkramfs_mount_options() {
  pkramfs --help 2>/dev/null |
    awk '/^Mount options/ { on = 1; next } /^Example/ { on = 0 } on && /^  [a-z]/ { print $1 }' |
    sed -E 's/=.*/=/'
}

# Options behind -o of PROGRAM.
_pkramfs_o_options() {
  if [ "$1" = mkfs.pkramfs ]; then
    printf '%s\n' size= pkram= mode= uid= gid=
  else
    _pkramfs_mount_options
  fi
}

# Adds each line of standard input that begins with $1, with $2 in front.  (A name may contain
# anything, so nothing here is expanded by the shell.)
_pkramfs_add() {
  local line
  while IFS= read -r line; do
    [[ $line != "$1"* ]] || COMPREPLY+=("$2$line")
  done
}

_pkramfs() {
  # Words with blanks between them; the shell's own COMP_WORDS are split at = and :, too.
  local typed=${COMP_LINE:0:COMP_POINT} words program command='' word cur='' previous
  read -ra words <<<"$typed"
  [[ $typed == *[[:blank:]] ]] || { cur=${words[-1]}; unset 'words[-1]'; }
  previous=${words[-1]}
  # Never what was typed: `./pkramctl` may be anybody's program.
  program=${words[0]##*/}
  COMPREPLY=()
  if [ "$program" = pkramctl ]; then
    for word in "${words[@]:1}"; do
      [[ $word == -* ]] || { command=$word; break; }
    done
    if [ -z "$command" ] && [[ $cur != -* ]]; then
      _pkramfs_add "$cur" '' < <(_pkramfs_commands)
      return
    fi
  fi
  if [ "$previous" = -o ]; then
    # The last of several options, with commas between them.  The shell replaces what is behind the
    # last equals sign.
    local before=''
    [[ $cur != *,* ]] || before=${cur%,*},
    _pkramfs_add "${cur##*,}" "${before##*=}" < <(_pkramfs_o_options "$program")
    compopt -o nospace 2>/dev/null
    return
  fi
  if [[ $cur == -* ]]; then
    [[ $command == '' || $command =~ ^[a-z]+$ ]] || return
    _pkramfs_add "$cur" '' < <(_pkramfs_options "$program" $command)
    return
  fi
  compopt -o filenames 2>/dev/null
  _pkramfs_add "$cur" '' < <(pkramctl list --names 2>/dev/null)
  _pkramfs_add '' '' < <(compgen -f -- "$cur")
}

complete -F _pkramfs pkramctl pkramfs mkfs.pkramfs fsck.pkramfs
