#!/usr/bin/env bash
# Programs that make or keep holes: no byte changes, whatever zeros, holes and data follow each other.
. "$(dirname "$0")/lib.sh"

# A file of pieces (data, zeros, a hole, a hole that was punched), as `layout` says: "d3 z1 h2 p16"
# and so on, in pages of 4 KiB; the same in $1.
make_file() {
  local file=$1 layout=$2 at=0 piece pages
  : >"$file"
  for piece in $layout; do
    pages=${piece:1}
    case $piece in
      d*) dd if="$TMP/data" of="$file" bs=4096 count="$pages" seek=$at skip=$((at % 64)) conv=notrunc status=none ;;
      z*) dd if=/dev/zero of="$file" bs=4096 count="$pages" seek=$at conv=notrunc status=none ;;
      p*)
        dd if="$TMP/data" of="$file" bs=4096 count="$pages" seek=$at conv=notrunc status=none
        fallocate -p -o $((at * 4096)) -l $((pages * 4096)) "$file"
        ;;
    esac
    at=$((at + pages))
  done
  truncate -s $((at * 4096 - $3)) "$file"
}

head -c 2M /dev/urandom >"$TMP/data"
# That of the issue: zeros, a hole, then data.
layouts=("z1 h1 d16" "h1 z1 d16" "d1 z1 h1 d1" "z2 p1 d3 h2 z1 d1" "p3 z1 d9")
RANDOM=23
for _ in $(seq 25); do
  layout=
  for _ in $(seq $((2 + RANDOM % 6))); do
    kinds=dzhp
    layout+="${kinds:RANDOM % 4:1}$((1 + RANDOM % 40)) "
  done
  layouts+=("$layout")
done

say "fallocate -d, cp, dd, tar and rsync, on files of ${#layouts[@]} layouts"
for i in "${!layouts[@]}"; do
  cut=$((i % 3 * 1000))
  make_file f "${layouts[i]}" $cut
  make_file "$TMP/f" "${layouts[i]}" $cut
  sum=$(md5sum <"$TMP/f")
  same() { [ "$(md5sum <"$1")" = "$sum" ] || fail "$2 changed bytes of a file of '${layouts[i]}'"; }
  same f "making it"
  cp --sparse=always f f.cp && same f.cp "cp --sparse=always"
  cp --sparse=never f f.cp && same f.cp "cp --sparse=never"
  cp --reflink=never --sparse=auto f f.cp && same f.cp "cp"
  dd if=f of=f.dd bs=4096 conv=sparse status=none && truncate -s "$(stat -c %s f)" f.dd && same f.dd "dd conv=sparse"
  rm -rf out && mkdir out
  tar -cSf - f | tar -xSf - -C out && same out/f "tar -S"
  rsync -S f out/f.rsync && same out/f.rsync "rsync -S"
  fallocate -d f && same f "fallocate -d"
  rm -f f f.cp f.dd "$TMP/f"
done
