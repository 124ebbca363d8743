#!/usr/bin/env bash
# This project, built and tested on pkramfs.
SIZE=4g
. "$(dirname "$0")/lib.sh"
mkdir src
tar -C "$SOURCE" --exclude=./build --exclude=./.git -cf - . | tar -C src -xf -
cd src
say "cmake, ninja"
cmake --preset gcc >/dev/null
ninja -C build/gcc
cd /
remount
cd "$MNT/src"
say "nothing is to be done again"
ninja -C build/gcc -n | grep -q 'no work to do' || fail "ninja would build again"
ctest --preset gcc -R 'Journal|PageMap|Space|Names|FileData' --output-on-failure
cd /
