#!/usr/bin/env bash
# Each shell completes the commands, the options that --help lists, mount options, and regions.
#   completions_test.sh DIRECTORY_OF_PROGRAMS
# zsh and fish are tried where they are installed.
set -euo pipefail
bin=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")/../mount/completions" && pwd)
PATH=$bin:$PATH
region=/dev/shm/pkramfs-completions-$$.pkram
work=$(mktemp -d)
# A name that does harm if a shell expands it.
hostile="/dev/shm/pkramfs-\$(touch\${IFS}$(basename "$work"))-$$"
trap 'rm -rf "$region" "$hostile" "$work"' EXIT
mkfs.pkramfs -q -o size=1m "$region"
mkfs.pkramfs -q -o size=1m "$hostile"
cd "$work"
# A program that nobody may start by completion.
printf '#!/bin/sh\ntouch started\n' >pkramctl
chmod +x pkramctl
mkdir fish
for program in pkramctl pkramfs mkfs.pkramfs fsck.pkramfs; do
  ln -s "$here/pkramctl.fish" "fish/$program.fish"
done
failed=0 tried=0

# What a shell offers for a command line, a line each: SHELL WORD...  The last word is begun only.
complete_bash() {
  bash -c '
    . "$1/pkramctl.bash"; shift
    compopt() { :; }
    COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
    _pkramfs
    printf "%s\n" "${COMPREPLY[@]}"' complete "$here" "$@"
}
# fish finds a file of the program's name by itself.
complete_fish() {
  fish --no-config -c 'set fish_complete_path $argv[1]; complete -C "$argv[2]"' "$work/fish" "$*" |
    cut -f 1
}
# What zsh would show goes to functions that print it.
complete_zsh() {
  zsh -f -c '
    compdef() { : }
    _files() { : }
    compset() { : }
    compadd() { shift; print -l -- "$@" }
    _describe() { print -l -- "${(@P)4%%:*}" }
    source_it() { words=("$@"); CURRENT=$#; source $completions/_pkramctl }
    completions=$1; shift
    source_it "$@"' complete "$here" "$@"
}

# The shell offers each of these for the command line: SHELL "WORD..." OFFER...
offers() {
  local shell=$1 line=$2 offered offer words
  shift 2
  IFS=' ' read -ra words <<<"$line"
  [[ $line != *' ' ]] || words+=('')
  offered=$("complete_$shell" "${words[@]}" 2>&1)
  for offer in "$@"; do
    tried=$((tried + 1))
    grep -qxF -- "$offer" <<<"$offered" && continue
    echo "$shell: '$line' does not offer '$offer', but: ${offered//$'\n'/ }"
    failed=1
  done
}

# It offers none of these.
refuses() {
  local before=$failed
  offers "$@" >"$work/missing"
  failed=$before
  [ "$(wc -l <"$work/missing")" = $(($# - 2)) ] && rm "$work/missing" && return
  echo "$1: '$2' offers one of: ${*:3}"
  failed=1
}

# The options in a help text: all words that begin with a dash, left of their explanation.
options_of() { "$@" --help | sed -nE 's/^  (-[^ ]+).*/\1/p' | sed 's/=.*//' | tr , '\n'; }

mapfile -t commands < <(pkramctl --help | sed -n '/ubcommands:\|UBCOMMANDS:/,$p' | sed -nE 's/^  ([a-z]+) .*/\1/p')
[ ${#commands[@]} -ge 15 ] || { echo "commands: ${commands[*]}"; exit 1; }
mount_options=(size= nr_inodes= nr_blocks= mode= uid= gid= pkram= mlock writeback notakeover noexport
  checkpoint= checkpoint_every= checkpoint_at_exit= ro nosuid allow_other remount)
for shell in bash zsh fish; do
  command -v $shell >/dev/null || { echo "skipped: $shell is not installed"; continue; }
  offers $shell 'pkramctl ' "${commands[@]}"
  for command in "${commands[@]}"; do
    mapfile -t options < <(options_of pkramctl "$command")
    offers $shell "pkramctl $command -" "${options[@]}"
  done
  for program in pkramctl pkramfs mkfs.pkramfs fsck.pkramfs; do
    mapfile -t options < <(options_of $program)
    offers $shell "$program -" "${options[@]}"
  done
  offers $shell 'pkramfs -o ' "${mount_options[@]}"
  offers $shell 'mkfs.pkramfs -o ' size= pkram= mode= uid= gid=
  refuses $shell 'mkfs.pkramfs -o ' checkpoint= writeback
  # A shell wants the part of the word that it replaces.
  case $shell in bash) before=1g, ;; zsh) before= ;; fish) before=size=1g, ;; esac
  offers $shell 'pkramfs -o size=1g,no' ${before}notakeover
  offers $shell './pkramctl ' info
  for line in 'pkramctl info ' 'pkramfs ' 'fsck.pkramfs '; do offers $shell "$line" "${region##*/}" "${hostile##*/}"; done
done
[ -z "$(find "$work" -newer "$work/pkramctl" -type f)" ] || { echo "completion has run: $(ls "$work")"; failed=1; }
echo "$tried offers tried"
exit $failed
