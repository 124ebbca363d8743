#!/usr/bin/env bash
# redis with an append-only file: what it has said OK to is there after a kill of everything.  With
# KILLS=1 nothing but pkramfs's own processes is killed, and redis sees no error.
. "$(dirname "$0")/lib.sh"
socket=$TMP/redis.sock
start() {
  redis-server --port 0 --unixsocket "$socket" --dir "$MNT" --appendonly yes --appendfsync always \
    --daemonize no --save '' >"$TMP/redis.log" 2>&1 &
  server=$!
  # (While it loads its file it answers, too, that it does.)
  for _ in $(seq 1200); do
    [ "$(redis-cli -s "$socket" ping 2>&1)" != PONG ] || return 0
    sleep 0.1
  done
  fail "redis does not start: $(tail -3 "$TMP/redis.log")"
}
finish() { kill -9 $server; }
cd /
start
say "writes, and a rewrite of the file"
redis-benchmark -s "$socket" -q -t set,lpush,hset -n 20000 -r 10000 -d 200 >/dev/null
redis-cli -s "$socket" bgrewriteaof >/dev/null
if [ -n "$KILLS" ]; then
  await_kills 5
  for i in $(seq 2000); do
    [ "$(redis-cli -s "$socket" incr counter)" = "$i" ] || fail "incr $i: $(tail -3 "$TMP/redis.log")"
  done
  # (One of its warnings at the start has the word.)
  grep -v overcommit "$TMP/redis.log" | grep -iE 'error|fail' && fail "redis saw errors"
  redis-cli -s "$socket" shutdown >/dev/null 2>&1 || true
  wait "$server" || true
  remount
  start
  counter=$(redis-cli -s "$socket" get counter)
  [ "$counter" = 2000 ] || fail "of 2000 increments there are: $counter"
  redis-cli -s "$socket" shutdown >/dev/null 2>&1 || true
  exit 0
fi
(while redis-cli -s "$socket" incr counter 2>/dev/null; do :; done) >"$TMP/acknowledged" 2>/dev/null &
sleep 5
say "kill -9 of the daemon, then of redis"
kill_both
kill -9 $server
wait || true
umount -l "$MNT"
mount_it
start
acknowledged=$(grep -E '^[0-9]+$' "$TMP/acknowledged" | tail -1)
counter=$(redis-cli -s "$socket" get counter)
say "acknowledged: $acknowledged, there: $counter"
[ "$counter" -ge "$acknowledged" ] || fail "what was acknowledged is lost"
digest=$(redis-cli -s "$socket" debug digest 2>/dev/null || redis-cli -s "$socket" dbsize)
redis-cli -s "$socket" shutdown >/dev/null 2>&1 || true
wait || true
remount
start
[ "$(redis-cli -s "$socket" debug digest 2>/dev/null || redis-cli -s "$socket" dbsize)" = "$digest" ] || fail "the data is another"
redis-cli -s "$socket" shutdown >/dev/null 2>&1 || true
wait || true
