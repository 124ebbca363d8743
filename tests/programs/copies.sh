#!/usr/bin/env bash
# tar, rsync and cp: what goes in comes out, with all metadata.
. "$(dirname "$0")/lib.sh"
src=$TMP/src
mkdir "$src"
say "a tree with something of everything"
cp -r /usr/include/linux "$src/include"
mkdir -p "$src/dir/deep/er" "$src/sticky" "$src/setgid" "$src/closed" "$src/acl"
chmod 1777 "$src/sticky"
chmod 2775 "$src/setgid"
chmod 000 "$src/closed"
for i in 0 1 3919 3920 3921 4096 4097 100000 3000000; do head -c $i /dev/urandom >"$src/size$i"; done
truncate -s 50M "$src/hole"
echo data | dd of="$src/hole" bs=1 seek=30000000 conv=notrunc status=none
ln "$src/size3921" "$src/hard"
ln "$src/size3921" "$src/dir/deep/hard"
ln -s size0 "$src/relative"
ln -s /nowhere/at/all "$src/dangling"
ln -s "$(printf '%0300d' 7)" "$src/long"
mkfifo "$src/fifo"
mknod "$src/char" c 1 3
mknod "$src/block" b 7 0
chown 12345:54321 "$src/size1" "$src/fifo"
chown -h 1:2 "$src/relative"
chmod 4711 "$src/size4096"
touch -d '1970-01-02 03:04:05.123456789' "$src/size1"
touch -d '2040-01-02 03:04:05.987654321' "$src/dir/deep"
touch -h -d '1999-12-31 23:59:59.5' "$src/dangling"
touch "$src/$(printf 'odd \001\n\377*?')" "$src/$(printf '%0255d' 1)"
setfattr -n user.name -v value "$src/size1" "$src/dir"
setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\0' x)" "$src/size0"
setfattr -n trusted.t -v root "$src/size4097"
setfattr -n security.s -v label "$src/dir/deep"
setfacl -m u:7:rwx,g:8:r "$src/size100000" "$src/acl"
setfacl -d -m u:9:rx,o::- "$src/acl"
touch "$src/acl/inherits"

acls() { (cd "$1" && find . ! -type l -print0 | sort -z | xargs -0 getfacl -n); }
same() {
  local differs
  differs=$(rsync -naHAXi --modify-window=-1 --checksum --delete --numeric-ids "$1/" "$2/")
  [ -z "$differs" ] || fail "$1 and $2 differ: $differs"
  diff <(acls "$1") <(acls "$2") || fail "$1 and $2 have other ACLs"
  diff <(cd "$1" && find . -printf '%P %y %m %U %G %n %l %T@ %s\n' | grep -v ' d ' | sort) \
    <(cd "$2" && find . -printf '%P %y %m %U %G %n %l %T@ %s\n' | grep -v ' d ' | sort) || fail "$1 and $2 differ"
}
say "rsync in"
rsync -aHAX --modify-window=-1 --numeric-ids "$src/" rsync/
say "tar in"
mkdir tar
tar -C "$src" --acls --xattrs --xattrs-include='*' --numeric-owner --sparse -cf - . |
  tar -C tar --acls --xattrs --xattrs-include='*' --numeric-owner -xpf -
say "cp in"
cp -a "$src" cp
for copy in rsync tar cp; do same "$src" "$MNT/$copy"; done
[ "$(stat -c %b cp/hole)" -lt 100 ] || fail "cp has filled the hole"
cd /
remount_after_kill
cd "$MNT"
for copy in rsync tar cp; do same "$src" "$MNT/$copy"; done
say "and out again"
mkdir "$TMP/out"
tar -C rsync --acls --xattrs --xattrs-include='*' --numeric-owner --sparse -cf - . |
  tar -C "$TMP/out" --acls --xattrs --xattrs-include='*' --numeric-owner -xpf -
same "$src" "$TMP/out"
cp -a cp "$TMP/cp"
same "$src" "$TMP/cp"
say "rm -rf"
rm -rf rsync tar cp
[ -z "$(ls -A)" ] || fail "something was left"
cd /
