#!/usr/bin/env bash
# Makes a virtual environment with the project's dependencies, without the project itself.
# usage: venv.sh PYTHON FOLDER EXTRAS
set -euo pipefail
python=$1 folder=$2 extras=$3

"$python" - <<'PY' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 11))
PY
case $extras in
  *inference*) need=9000 what="dependencies with torch and diffusers (about 6 GB, 2 to 4 minutes)" ;;
  *) need=1500 what="dependencies (about 0.6 GB, 1 minute)" ;;
esac
mkdir -p "$(dirname "$folder")"
free=$(df -Pm "$(dirname "$folder")" | awk 'NR==2 {print $4}')
if [ "$free" -lt "$need" ]; then
  echo "not enough disk for $folder: $need MB are needed, $free MB are free" >&2
  exit 1
fi

# One builder at a time; the second finds the work done.
exec 9>"$folder.lock"
flock 9
[ -e "$folder/.complete" ] && exit 0

echo "Installing $what into $folder"
rm -rf "$folder"
"$python" -m venv "$folder"
requirements=$("$folder/bin/python" scripts/requirements.py "$extras")
mapfile -t list <<<"$requirements"
started=$SECONDS
"$folder/bin/pip" install --disable-pip-version-check --no-warn-script-location \
  --progress-bar "$([ -t 1 ] && echo on || echo off)" \
  --constraint constraints.txt "${list[@]}" \
  | grep --line-buffered -E '^(Collecting|Installing|Successfully|ERROR)' | cut -c1-110 \
  || { echo "pip could not install the dependencies; see above" >&2; exit 1; }
touch "$folder/.complete"
echo "Installed in $((SECONDS - started)) s"
