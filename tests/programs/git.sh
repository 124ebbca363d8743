#!/usr/bin/env bash
# git: clone, check out, commit, gc and fsck of this project's own repository.
. "$(dirname "$0")/lib.sh"
origin=$SOURCE
if ! git -C "$origin" rev-parse HEAD >/dev/null 2>&1; then
  say "the sources are no repository: one is made of them"
  cp -r "$SOURCE" "$TMP/origin" && rm -rf "$TMP/origin/build"
  origin=$TMP/origin
  git -C "$origin" init -q
  git -C "$origin" add -A
  git -C "$origin" -c user.name=a -c user.email=a@b commit -qm first
fi
say clone
git clone -q --no-hardlinks "$origin" repo
git -C repo fsck --full --strict
head=$(git -C repo rev-parse HEAD)
remount_after_kill
cd "$MNT/repo"
[ -z "$(git status --porcelain)" ] || fail "the work tree is not what was checked out"
say "branches, commits, a merge"
git config user.name tester
git config user.email tester@example.com
git checkout -q -b topic
for i in $(seq 30); do
  mkdir -p "dir$((i % 5))"
  echo "$i" >"dir$((i % 5))/file$i"
  git add -A
  git commit -qm "change $i"
done
git checkout -q -
git merge -q --no-ff -m merge topic
git gc -q --aggressive --prune=now
git fsck --full --strict
[ -f dir0/file30 ] || fail "the merge is missing"
log=$(git log --format=%H | sha256sum)
cd /
remount
cd "$MNT/repo"
[ "$(git log --format=%H | sha256sum)" = "$log" ] || fail "the history is another"
git fsck --full --strict
[ -z "$(git status --porcelain)" ] || fail "the work tree is not what was committed"
git worktree add -q ../other "$head"
git -C ../other diff --quiet "$head"
cd /
