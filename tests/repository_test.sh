#!/usr/bin/env bash
# Rules of the house that a compiler does not know.
#   repository_test.sh SOURCE_DIR
set -euo pipefail
cd "$1"
failed=0
fail() { echo "repository_test: $*"; failed=1; }

# Nothing includes upward; pkram knows nothing of files, fs nothing of FUSE.
for rule in 'pkram:"(fs|mount|tests)/' 'fs:"(mount|tests)/' 'mount:"tests/' \
            'pkram:<fuse|fuse_lowlevel' 'fs:<fuse|fuse_lowlevel'; do
  if grep -rnE "^#include .*${rule#*:}" --include='*.h' --include='*.cc' "${rule%%:*}"; then
    fail "${rule%%:*}/ includes upward"
  fi
done
if grep -rnw -E 'fuse_[a-z_]+' fs pkram --include='*.h' --include='*.cc'; then
  fail "a fuse_* name outside mount/"
fi

# Header guards are the path.
for header in pkram/*.h fs/*.h mount/*/*.h tests/*.h tests/coherence/*.h tests/conformance/*.h tests/crash/*.h tests/fuzz/*.h; do
  guard=$(echo "$header" | tr 'a-z/.' 'A-Z__')_
  grep -q "^#ifndef $guard\$" "$header" && grep -q "^#define $guard\$" "$header" &&
    tail -n 1 "$header" | grep -q "^#endif  // $guard\$" || fail "$header: its guard is not $guard"
done

# Every test is registered, every source is built.
for test in tests/*_test.cc; do
  grep -qwF "$(basename "$test")" tests/CMakeLists.txt || fail "$test is not registered"
done
for source in pkram/*.cc fs/*.cc mount/*/*.cc; do
  dir=${source%%/*}
  grep -qwF "${source#"$dir"/}" "$dir/CMakeLists.txt" || fail "$source is not built"
done

# mount/'s rooms, from the ground.
for rule in 'region:(serve|tools|ctl|daemon)' 'serve:(tools|ctl|daemon)' 'tools:(ctl|daemon)' 'ctl:daemon' \
            'daemon:ctl'; do
  if grep -rnE "^#include \"mount/${rule#*:}/" "mount/${rule%%:*}"; then
    fail "mount/${rule%%:*} includes upward"
  fi
done
for source in tests/coherence/*.cc tests/conformance/*.cc tests/crash/*.cc tests/fuzz/*.cc tests/programs/[!l]*.sh tests/kexec/guest.cc tests/kexec/run.sh; do
  grep -qw "$(basename "${source%.sh}")" tests/CMakeLists.txt tests/one_thread.cmake .ci/programs || fail "$source is not run"
done

# The layout of each struct in a region is asserted.
for struct in SuperBlock JournalSlot Node ObjectHeader Object Link ImageFooter DeltaHeader DeltaEntry; do
  grep -q "static_assert(sizeof($struct) ==" pkram/format.h || fail "$struct: size not asserted"
done
for struct in InodeRecord Slot XattrHeader; do
  grep -q "static_assert(sizeof($struct) ==" fs/layout.h || fail "$struct: size not asserted"
done

# Stores to reachable metadata are made in few places: who asks for a writable
# pointer is on this list, with its reason in the code.
allowed='pkram/(mapping|journal|space|link_builder|link_map|save_stream|region)\.|fs/(adoption|directory|file_data|filesystem|inode|inode_table|tree_builder|trees|unborn)\.'
others=$(grep -rlE '(Writable(At)?|Unwatched)[<(]' pkram fs mount --include='*.h' --include='*.cc' | grep -vE "^($allowed)" || true)
[ -z "$others" ] || fail "asks for writable pointers: $others"

# What docs/devdax.md tells an operator to type is what tests/kexec does.
untried=$(awk '/^```(sh|fstab|cmdline)$/ { inside = 1; next } /^```/ { inside = 0 } inside && NF' \
  docs/devdax.md | while read -r line; do grep -rqF -- "$line" tests/kexec || echo "$line"; done)
[ -z "$untried" ] || fail "docs/devdax.md: tests/kexec does not do this: $untried"

# What is typed is the same everywhere: one version.
version=$(sed -nE 's/^project\(pkramfs VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)
grep -q "^## $version " CHANGELOG.md || fail "CHANGELOG.md does not have $version"
head -n 1 debian/changelog | grep -qF "($version)" || fail "debian/changelog does not begin with $version"

# Prose wraps at 100 columns; tables, links and what is typed may be longer.
long=$(awk 'FNR == 1 { code = 0 } /^ *```/ { code = !code }
  length > 100 && !code && !/^[|>]/ && !/\]\(/ && !/^!\[/ { print FILENAME ":" FNR }' ./*.md docs/*.md)
[ -z "$long" ] || fail "longer than 100 columns: $long"

exit $failed
