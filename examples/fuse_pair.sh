#!/usr/bin/env bash
# Fuses one infrared and one visible picture; without arguments, the street at night beside this script.
#
#   examples/fuse_pair.sh                          writes street_night_fused.png into the current folder
#   examples/fuse_pair.sh IR VIS OUT [OPTION...]   any pair; options go to `diffmf fuse`
set -euo pipefail

if (($# == 0)); then
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  set -- "$here/street_night_ir.png" "$here/street_night_vis.png" street_night_fused.png
elif (($# < 3)); then
  echo "usage: $0 [IR VIS OUT [OPTION...]]: got $# of IR, VIS and OUT" >&2
  exit 2
fi
if ! command -v diffmf >/dev/null; then
  echo "$0: no command diffmf on the PATH: install it with pip install . in the project's folder" >&2
  exit 1
fi

exec diffmf fuse "$1" "$2" -o "$3" "${@:4}"
