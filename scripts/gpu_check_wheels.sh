#!/bin/sh
# Fetch what scripts/gpu_check.sh needs on a machine without a network.
#
#     scripts/gpu_check_wheels.sh DIR [PYTHON_VERSION ...]
#
# PYTHON_VERSION is that of the machine with the GPU (3.11, 3.12 and 3.13 by default). PyTorch,
# Transformers, NumPy and PyArrow are large and left out: the machine has them.
set -eu
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
directory=$1
shift
[ $# -gt 0 ] || set -- 3.11 3.12 3.13
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
"$python" "$root/scripts/gpu_check/requirements.py" --small > "$requirements"
for version in "$@"; do
    "$python" -m pip --disable-pip-version-check download --quiet --only-binary :all: \
        --python-version "$version" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
        --requirement "$requirements" --dest "$directory"
done
ls "$directory"
