#!/bin/sh
# Check this package on a machine with an NVIDIA GPU, without a network; about 12 minutes.
#
#     scripts/gpu_check.sh [--wheels DIR] [--venv DIR] [--out FILE] [--sections NAME,NAME]
#
# --wheels   what scripts/gpu_check_wheels.sh fetched; nothing is asked of a network then
# --venv     where the virtual environment is made (.venv-gpu)
# --out      the report (benchmarks/results/gpu/GPU_DAY.json)
# --sections only these sections
#
# PYTHON names an interpreter that has PyTorch and Transformers (python3). Exit code 0: all is well.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
venv=$root/.venv-gpu
wheels=

while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$(cd "$2" && pwd); shift 2 ;;
        --venv) venv=$2; shift 2 ;;
        --help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) break ;;
    esac
done

# Build isolation reads these too.
if [ -n "$wheels" ]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$wheels"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv --without-pip --system-site-packages "$venv"
    # An interpreter that is itself of a virtual environment does not pass its packages on.
    "$python" -c 'import site; print("\n".join(site.getsitepackages() + [site.getusersitepackages()]))' \
        > "$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/outer.pth"
fi
"$venv/bin/python" "$root/scripts/gpu_check/requirements.py" > "$venv/requirements.txt"
"$python" -m pip --python "$venv/bin/python" install --quiet --requirement "$venv/requirements.txt"
"$python" -m pip --python "$venv/bin/python" install --quiet --no-deps --force-reinstall "$root"

PYTHONPATH=$root/scripts exec "$venv/bin/python" -m gpu_check "$@"
