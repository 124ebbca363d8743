# What the programs are built with, for the scripts beside this one: debian/control has the list.
mapfile -t build_packages < <(
  awk '/^Build-Depends:/ { on = 1; next } /^[^ ]/ { on = 0 } on { sub(/,$/, "", $1); print $1 }' \
    debian/control | grep -v debhelper
)
