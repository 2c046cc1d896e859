#!/usr/bin/env bash
# Runs the Docker runner against a real Docker engine, and keeps what came of it in
# benchmarks/results/docker/. Takes the engine that answers; without one, and as root on Debian or
# Ubuntu, installs docker.io and starts it with everything of its own in a temporary directory.
#
#   scripts/test_docker.sh [PYTHON]      PYTHON: an environment with this package and pytest
set -euo pipefail

cd "$(dirname "$0")/.."
repository=$PWD
python=$(realpath --no-symlinks "${1:-.venv/bin/python}")
results=$repository/benchmarks/results/docker
work=$(mktemp -d "${TMPDIR:-/tmp}/llem-docker.XXXXXX")
daemon=
tester=54321 # a user of no name, who owns nothing

finish() {
    docker image rm --force llem-docker-test:latest >/dev/null 2>&1 || true
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

start_engine() {
    if [ "$(id -u)" != 0 ]; then
        echo "no Docker engine answers, and only root can start one" >&2
        exit 1
    fi
    if ! command -v dockerd >/dev/null; then
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends docker.io
    fi
    export DOCKER_HOST=unix://$work/docker.sock
    # Without bridge and iptables, since neither needs to be there; vfs works on any file system.
    dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs \
        --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
        -H "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
    daemon=$!
    until docker version >/dev/null 2>&1; do
        kill -0 "$daemon" 2>/dev/null || { tail -20 "$work/dockerd.log" >&2; exit 1; }
        sleep 0.2
    done
    chmod 755 "$work"
    chmod 666 "$work/docker.sock" # for the tester; the folder goes with the test
    options="--network none --ulimit nofile=1024:4096"
}

# An image of empty folders: interpreter, packages and this checkout are mounted, since a copy of
# torch in an image would be a copy in every container.
make_image() {
    local root=$work/root
    mkdir -p "$root"/{usr,tmp,proc,sys,dev,etc,run,var}
    chmod 1777 "$root/tmp"
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
    cp /etc/ld.so.cache "$root/etc/"
    tar -C "$root" -c . | docker import --change "ENV PATH=$(dirname "$python"):/usr/bin:/bin" \
        - llem-docker-test:latest >/dev/null
    export LLEM_TEST_IMAGE=llem-docker-test:latest
    local base venv
    base=$("$python" -c 'import sys; print(sys.base_prefix)')
    venv=$("$python" -c 'import sys; print(sys.prefix)')
    for folder in /usr "$base" "$venv" "$repository" ${LLEM_TEST_FOLDERS:-}; do
        case "$folder" in /usr/*) continue ;; esac
        case " $options " in *" $folder:$folder:ro "*) continue ;; esac
        options="$options -v $folder:$folder:ro"
    done
    export LLEM_DOCKER_OPTIONS="$options --env PYTHONPATH=$repository/src"
}

# Root's tests would not show whose the files are. Other users may not reach every interpreter.
as_tester() {
    local prefix=()
    if [ "$(id -u)" = 0 ]; then
        local try=(setpriv "--reuid=$tester" "--regid=$tester" --clear-groups /bin/sh -c 'exec "$@"' sh)
        if (cd "$repository" && "${try[@]}" "$python" -c 'import pytest' && "${try[@]}" docker version) \
            >/dev/null 2>&1; then
            prefix=("${try[@]}")
        else
            echo "running as root: user $tester can use neither $python nor docker" >&2
        fi
    fi
    env HOME="$work/home" USER=tester LOGNAME=tester HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 \
        PYTHONPATH="$repository/src" "${prefix[@]}" "$python" "$@"
}

options=
docker version >/dev/null 2>&1 || start_engine
make_image
mkdir -p "$results"
mkdir -m 777 "$work/home" "$work/tests" "$work/report"

status=0
as_tester -m pytest --no-cov -p no:cacheprovider -p no:hypothesispytest -v --basetemp "$work/tests/t" \
    tests/integration/test_docker_runner.py 2>&1 | tee "$results/tests.log" || status=$?
sed -i "s#$work#/tmp/work#g; s#$repository#.#g; s#$(dirname "$(dirname "$python")")#venv#g" "$results/tests.log"
as_tester benchmarks/runner_overhead.py --output "$work/report/runner_overhead.json"
cp "$work/report/runner_overhead.json" "$results/"
exit $status
