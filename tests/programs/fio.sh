#!/usr/bin/env bash
# fio writes blocks that say what they are; after a kill and after an unmount they all do.
. "$(dirname "$0")/lib.sh"
: "${FIO_SIZE:=48m}"
jobs=(
  "buffered --rw=randwrite --bsrange=512-64k --ioengine=psync"
  "direct --rw=randwrite --bs=4k --direct=1 --ioengine=psync"
  "mapped --rw=randwrite --bs=4k --ioengine=mmap"
  "deep --rw=randwrite --bs=16k --direct=1 --ioengine=libaio --iodepth=16"
  "ring --rw=randwrite --bs=16k --direct=1 --ioengine=io_uring --iodepth=16"
  "stream --rw=write --bs=1m --ioengine=psync"
)
run() {
  for job in "${jobs[@]}"; do
    # shellcheck disable=SC2086
    set -- $job
    fio --name="$1" --directory="$MNT" --size="$FIO_SIZE" --verify=crc32c --verify_fatal=1 \
      --end_fsync=1 --randseed=7 --output="$TMP/fio.log" "${mode[@]}" "${@:2}" ||
      fail "$1: $(tail -5 "$TMP/fio.log")"
  done
}
cd /
say write
mode=(--do_verify=0)
run
remount_after_kill
say verify
mode=(--verify_only)
run
remount
say "verify again"
run
