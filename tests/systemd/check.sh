#!/bin/bash
# What systemd does with mounts, in a machine of .ci/systemd.  Each boot of it runs the checks of one
# function boot_N, and powers the machine off.
#   passed  NAME        in /results/checks.N
#   failed  NAME        and what was printed
set -o pipefail
state=/var/lib/pkramfs-check
mkdir -p $state
boot=$(($(cat $state/boot 2>/dev/null || echo 0) + 1))
echo $boot >$state/boot
results=/results/checks.$boot

# Runs a function, of which each command must succeed: FUNCTION NAME.
check() {
  local status
  # (Within an `if` or before a `||`, set -e would do nothing.)
  (set -eux; "$1") >$state/log 2>&1 </dev/null
  status=$?
  if [ $status = 0 ]; then
    echo "passed  boot $boot: $2" >>$results
  else
    {
      echo "failed  boot $boot: $2"
      sed 's/^/  /' $state/log
      journalctl -b -n 15 --no-pager | sed 's/^/  /'
    } >>$results
  fi
}
# Until a command succeeds, half a minute at most.
eventually() {
  local -
  set +x
  for _ in $(seq 300); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "never: $*"
  return 1
}
fails() { if "$@"; then return 1; fi; }
is() { [ "$(systemctl show -P ActiveState "$1")" = "$2" ]; }
# (What the kernel has cached of a dead mount can be read still.)
restarts() { systemctl show -P NRestarts "$1"; }
restarted() { [ "$(restarts "$1")" -gt "$2" ] && is "$1" active; }
# Inactive, or failed.
ended_unit() { ! is "$1" active; }
mounted() { [ "$(findmnt -n -t fuse.pkramfs -o TARGET "$1" | wc -l)" = 1 ]; }
size() { [ "$(df --output=size -k "$1" | tail -n 1)" -eq $(($2 * 1024)) ]; }
number() { pkramctl info --json "$1" | sed -n "s/^  \"$2\": \([0-9]*\),*/\1/p"; }
daemon() { number "$1" pid; }
keeper() { number "$1" keeper; }
ended() { ! kill -0 "$1"; }
kill_server() {
  local pid
  pid=$(daemon "$1")
  kill -9 "$pid"
  eventually ended "$pid"
}
# And who would start another.
kill_daemon() {
  local server keeper
  server=$(daemon "$1") keeper=$(keeper "$1")
  kill -STOP "$keeper"
  kill -9 "$server" "$keeper"
  eventually ended "$server"
  eventually ended "$keeper"
}
sealed() {
  pkramctl info --json "$1" | grep -x '  "sealed": true,'
  pkramctl check "$1" | grep ': 0 problems'
}
fstab() { printf '%s\n' "$@" >/etc/fstab; systemctl daemon-reload; }
said_by_pkramfs() { journalctl -b -o cat --no-pager -t pkramfs | grep -F -- "$1"; }
said() { journalctl -b -o cat --no-pager -u "$1" | grep -F -- "$2"; }

# Its region is gone after each boot, and the image, made at the poweroff, is not.
ram_kept() {
  is srv-ram.mount active
  mounted /srv/ram
  [ "$boot" = 1 ] || grep -x "boot $((boot - 1))" /srv/ram/file
  echo "boot $boot" >/srv/ram/file
}

# As checkpoints.md has it, but every two seconds.
by_timer() {
  local units=/etc/systemd/system/ram-checkpoint
  printf '%s\n' '[Service]' Type=oneshot 'ExecStart=/usr/bin/pkramctl checkpoint ram.pkram' >$units.service
  printf '%s\n' '[Timer]' 'OnCalendar=*:*:0/2' AccuracySec=100ms '[Install]' WantedBy=timers.target >$units.timer
  systemctl daemon-reload
  local image=/var/lib/pkramfs/ram.img
  # There, and new each time.
  rm -f "$image"
  systemctl enable --now ram-checkpoint.timer
  eventually pkramctl check "$image"
  local before
  before=$(stat -c %i.%Y "$image")
  changed() { [ "$(stat -c %i.%Y "$image")" != "$before" ]; }
  echo more >>/srv/ram/more
  eventually changed
  systemctl disable --now ram-checkpoint.timer
}

# --- The first boot: a line of fstab (.ci/systemd wrote it) ---------------------------------------

line='cache.pkram /srv/cache fuse.pkramfs size=64m,nofail 0 0'

has_booted() { [ "$(systemctl is-system-running --wait)" = running ]; }
at_boot() {
  is srv-cache.mount active
  mounted /srv/cache
  size /srv/cache 64
  echo kept >/srv/cache/file
}
restart() {
  systemctl restart srv-cache.mount
  is srv-cache.mount active
  grep -x kept /srv/cache/file
}
# So much metadata that to seal it takes a moment, which the next mount waits for.
restart_large() {
  fstab "${line/64m/512m}"
  systemctl reload srv-cache.mount
  mkdir /srv/cache/many
  (cd /srv/cache/many && seq 20000 | xargs touch)
  systemctl restart srv-cache.mount
  [ "$(find /srv/cache/many -type f | wc -l)" = 20000 ]
  rm -r /srv/cache/many
}
reload() {
  fstab "$line"
  systemctl reload srv-cache.mount
  size /srv/cache 64
  fstab "${line/64m/96m}"
  size /srv/cache 64
  local pid
  pid=$(daemon cache.pkram)
  systemctl reload srv-cache.mount
  size /srv/cache 96
  [ "$(daemon cache.pkram)" = "$pid" ]
  fstab "${line/64m/96m,ro}"
  systemctl reload srv-cache.mount
  fails touch /srv/cache/file
  fstab "${line/64m/96m}"
  systemctl reload srv-cache.mount
  touch /srv/cache/file
  grep -x kept /srv/cache/file
}
reload_refused() {
  head -c 40m /dev/urandom >/srv/cache/large
  fstab "${line/64m/16m}"
  fails systemctl reload srv-cache.mount
  eventually said srv-cache.mount 'is too small'
  fstab "${line/64m/96m,writeback}"
  fails systemctl reload srv-cache.mount
  eventually said srv-cache.mount 'option writeback: cannot change while it is mounted'
  is srv-cache.mount active
  size /srv/cache 96
  fstab "$line"
  systemctl reload srv-cache.mount
  rm /srv/cache/large
}
twice() {
  systemctl daemon-reload
  mount -a
  mount -a
  systemctl daemon-reload
  systemctl daemon-reexec
  is srv-cache.mount active
  mounted /srv/cache
  [ "$(pgrep -x -c pkramfs)" = 2 ]  # and one of srv-ram.mount
}
# With a line in the journal each.
taken_over() {
  exec 9</srv/cache/file
  kill_server cache.pkram
  grep -x kept /dev/fd/9
  is srv-cache.mount active
  kill -9 "$(keeper cache.pkram)"
  grep -x kept /srv/cache/file
  eventually said_by_pkramfs 'the server ended by signal 9 (Killed), and another took over'
  eventually said_by_pkramfs 'the keeper ended, and there is another'
}
killed() {
  kill_daemon cache.pkram
  # The mount is still there, and all that systemd looks at.
  is srv-cache.mount active
  fails ls /srv/cache
  systemctl restart srv-cache.mount
  grep -x kept /srv/cache/file
}
killed_in_use() {
  exec 9</srv/cache/file
  kill_daemon cache.pkram
  fails systemctl restart srv-cache.mount
  umount -l /srv/cache
  eventually ended_unit srv-cache.mount
  systemctl start srv-cache.mount
  grep -x kept /srv/cache/file
}
boot_1() {
  check has_booted "nothing failed"
  check ram_kept "checkpoint=: the region is gone, and what it held is there"
  check by_timer "checkpoint=: a timer makes images"
  check at_boot "fstab: mounted at boot"
  check restart "fstab: restart keeps the files"
  check restart_large "fstab: restart waits for the seal of many files"
  check reload "fstab: reload changes size and flags in place"
  check reload_refused "fstab: what reload cannot change is said, and nothing changes"
  check twice "daemon-reload, daemon-reexec and mount -a, twice: one mount"
  check taken_over "kill -9 of the server, then of the keeper: programs do not notice"
  check killed "kill -9, restart: the files are there"
  check killed_in_use "kill -9 with a file open: umount -l, start: the files are there"
  fstab "${line/nofail/nofail,x-systemd.automount,x-systemd.idle-timeout=1s}" \
    'heals.pkram /srv/heals fuse.pkramfs size=64m,nofail,auto_unmount,x-systemd.automount 0 0'
}

# --- The second: automount ------------------------------------------------------------------------

was_sealed() { sealed cache.pkram; }
# What the journal has of the last shutdown.  (With auto_unmount fusermount3 looks at the directory
# after an unmount, and systemd refuses to mount it again for that.)
was_quiet() {
  journalctl -b -1 --after-cursor="$(cat $state/cursor)" -o cat --no-pager |
    grep -E 'srv-|pkramfs|front|behind' | grep -v 'srv-heals.automount' >$state/shutdown
  cat $state/shutdown
  fails grep -iE 'fail|time|busy|error|kill' $state/shutdown
}
automount() {
  is srv-cache.automount active
  is srv-cache.mount inactive
  grep -x kept /srv/cache/file
  is srv-cache.mount active
  mounted /srv/cache
}
idle() {
  eventually is srv-cache.mount inactive
  grep -x kept /srv/cache/file
  is srv-cache.mount active
}
# The dead mount is idle, too, once nobody asks for it any more.
killed_idle() {
  kill_daemon cache.pkram
  eventually is srv-cache.mount inactive
  grep -x kept /srv/cache/file
}
heals() {
  echo kept >/srv/heals/file
  ls /srv/heals
  exec 9</srv/heals/file
  kill_daemon heals.pkram
  eventually grep -x kept /srv/heals/file
  mounted /srv/heals
}
boot_2() {
  check has_booted "nothing failed"
  check ram_kept "checkpoint=: the region is gone, and what it held is there"
  check was_sealed "fstab: poweroff sealed the region"
  check was_quiet "fstab: the journal of the poweroff has no failure"
  check automount "automount: the first access mounts"
  check idle "automount: unmounted when idle, and mounted again"
  check killed_idle "automount: kill -9: back after the idle timeout"
  check heals "automount, auto_unmount: kill -9 with a file open: the next access mounts again"
  fstab 'joe.pkram /srv/joe fuse.pkramfs size=64m,user,noauto 0 0'
  cp /tests/units/srv-unit.mount /tests/units/{front,behind,holder}.service /etc/systemd/system/
  mkdir -p /etc/pkramfs
  printf 'REGION=stored.pkram\nWHERE=/srv/stored\nOPTIONS=size=64m\n' >/etc/pkramfs/stored.conf
  printf 'REGION=memfd:named\nWHERE=/srv/named\nOPTIONS=size=64m\n' >/etc/pkramfs/named.conf
  systemctl daemon-reload
  systemctl enable srv-unit.mount
  mkdir -p /srv/{front,behind,stored,named,transient,hand,joe}
}

# --- The third: a unit written by hand, services, systemd-mount, an ordinary user's mount ---------

were_sealed() {
  sealed cache.pkram
  sealed heals.pkram
}
unit() {
  is srv-unit.mount active
  size /srv/unit 64
  echo kept >/srv/unit/file
  systemctl restart srv-unit.mount
  grep -x kept /srv/unit/file
  sed -i s/size=64m/size=80m/ /etc/systemd/system/srv-unit.mount
  systemctl daemon-reload
  systemctl reload srv-unit.mount
  size /srv/unit 80
}
front() {
  systemctl start front.service
  eventually mounted /srv/front
  echo kept >/srv/front/file
  systemctl restart front.service
  eventually grep -x kept /srv/front/file
}
front_stops() {
  exec 9</srv/front/file
  systemctl stop front.service
  is front.service inactive
  fails mounted /srv/front
  sealed front.pkram
}
front_unmounted() {
  systemctl start front.service
  eventually mounted /srv/front
  umount /srv/front
  eventually is front.service inactive
  sealed front.pkram
}
front_killed() {
  systemctl start front.service
  eventually mounted /srv/front
  exec 9</srv/front/file
  kill_server front.pkram
  grep -x kept /dev/fd/9
  is front.service active
  restarts=$(restarts front.service)
  kill_daemon front.pkram
  eventually restarted front.service "$restarts"
  eventually grep -x kept /srv/front/file
}
stored() {
  systemctl start pkramfs@stored.service
  mounted /srv/stored
  exec 9<>/srv/stored/file
  echo kept >&9
  kill_server stored.pkram
  grep -x kept /dev/fd/9
  kill -9 "$(keeper stored.pkram)"
  grep -x kept /dev/fd/9
  is pkramfs@stored.service active
  pkramctl upgrade stored.pkram
  grep -x kept /dev/fd/9
  is pkramfs@stored.service active
}
# Whoever has files open waits for the next start.
stored_killed() {
  exec 9<>/srv/stored/file 8<>/srv/stored/gone
  rm /srv/stored/gone
  echo nameless >&8
  for _ in 1 2; do
    restarts=$(restarts pkramfs@stored.service)
    kill_daemon stored.pkram
    eventually restarted pkramfs@stored.service "$restarts"
    grep -x kept /dev/fd/9
    grep -x nameless /dev/fd/8
    mounted /srv/stored
  done
}
stored_unmounted() {
  umount /srv/stored
  eventually is pkramfs@stored.service inactive
  sealed stored.pkram
  systemctl start pkramfs@stored.service
  grep -x kept /srv/stored/file
}
# While the unit is stopped, systemd has the region (from version 254 on).
named() {
  systemctl enable --now pkramfs@named.service
  echo kept >/srv/named/file
  exec 9<>/srv/named/file
  systemctl reload pkramfs@named.service
  restarts=$(restarts pkramfs@named.service)
  kill_daemon memfd:named
  eventually restarted pkramfs@named.service "$restarts"
  grep -x kept /dev/fd/9
  exec 9>&-
  if [ -z "$(systemctl show -P FileDescriptorStorePreserve pkramfs@named.service)" ]; then
    # A process of its own has it then.
    systemctl stop pkramfs@named.service
    pkramctl check memfd:named
    systemctl start pkramfs@named.service
    grep -x kept /srv/named/file
    systemctl disable --now pkramfs@named.service
    pkramctl release memfd:named
    return
  fi
  for _ in 1 2; do
    systemctl reset-failed pkramfs@named.service  # this many starts are the test's
    systemctl stop pkramfs@named.service
    fails mounted /srv/named
    pkramctl check memfd:named
    systemctl start pkramfs@named.service
    grep -x kept /srv/named/file
    systemctl restart pkramfs@named.service
    grep -x kept /srv/named/file
  done
  systemctl stop pkramfs@named.service
  systemctl clean --what=fdstore pkramfs@named.service
  systemctl disable pkramfs@named.service
  fails pkramctl check memfd:named
}
behind() {
  systemctl start behind.service
  echo kept >/srv/behind/file
  systemctl restart behind.service
  grep -x kept /srv/behind/file
  kill_server behind.pkram
  grep -x kept /srv/behind/file
  restarts=$(restarts behind.service)
  kill_daemon behind.pkram
  eventually restarted behind.service "$restarts"
  grep -x kept /srv/behind/file
  mounted /srv/behind
}
transient() {
  # systemd-mount takes only paths, and of files that are there; not in /dev.
  fails systemd-mount -t fuse.pkramfs transient.pkram /srv/transient
  mkfs.pkramfs /run/transient.pkram -o size=64m
  systemd-mount -t fuse.pkramfs /run/transient.pkram /srv/transient
  echo kept >/srv/transient/file
  systemd-umount /srv/transient
  fails mounted /srv/transient
  systemd-mount -t fuse.pkramfs /run/transient.pkram /srv/transient
  grep -x kept /srv/transient/file
  systemd-umount /srv/transient
}
# A mount by hand belongs to the session that it was made in, and ends with that.
session() {
  systemd-run --scope --unit=login mount -t fuse.pkramfs hand.pkram /srv/hand -o size=64m
  mounted /srv/hand
  systemctl stop login.scope
  fails mounted /srv/hand
  sealed hand.pkram
}
user() {
  useradd --create-home joe
  chown joe /srv/joe
  su joe -c 'mount /srv/joe && echo kept >/srv/joe/file && umount /srv/joe'
  su joe -c 'mount /srv/joe && grep -x kept /srv/joe/file'
  eventually is srv-joe.mount active
}
hold() {
  systemctl start holder.service
  eventually test -e /srv/unit/held
  systemctl disable srv-unit.mount
}
boot_3() {
  check has_booted "nothing failed"
  check ram_kept "checkpoint=: the region is gone, and what it held is there"
  check were_sealed "automount: poweroff sealed the regions"
  check was_quiet "automount: the journal of the poweroff has no failure"
  check unit "a mount unit written by hand: boot, restart, reload"
  check front "a service in the foreground: start, restart"
  check front_stops "a service in the foreground: stop with a file open seals the region"
  check front_unmounted "a service in the foreground: umount ends it"
  check front_killed "a service in the foreground: kill -9 with a file open: it restarts"
  check stored "a service that notifies: kill -9 of either, reload"
  check stored_killed "a service that notifies: kill -9 of both with files open: programs do not notice"
  check stored_unmounted "a service that notifies: umount ends it, and it starts anew"
  check named "a region in a memfd: reload, kill -9 of both, stop and start"
  check behind "a service in the background: start, restart, kill -9"
  check transient "systemd-mount of a region that is there"
  check session "a mount by hand: ends with its session, and is sealed"
  check user "an ordinary user's mount by a line with user"
  check hold "a file is open at poweroff"
}

# --- The fourth: what the third has left ----------------------------------------------------------

all_sealed() {
  [ -n "$(find /dev/shm -name joe.pkram)" ]
  chown root /dev/shm/joe.pkram  # whose region it is does not matter any more
  sealed joe.pkram
  sealed front.pkram
  sealed behind.pkram
  sealed stored.pkram
}
held_sealed() { sealed unit.pkram; }
boot_4() {
  check has_booted "nothing failed"
  check ram_kept "checkpoint=: the region is gone, and what it held is there"
  check all_sealed "services and a user's mount: poweroff sealed the regions"
  check held_sealed "a unit with a file open: poweroff sealed the region"
}

"boot_$boot"
journalctl -n 0 --show-cursor --no-pager | sed -n 's/^-- cursor: //p' >$state/cursor
date +%s >"/results/off.$boot"
systemctl poweroff
