#!/usr/bin/env bash
# Everything that needs a CUDA device: tests, compute-sanitizer, benchmarks of kernels, frames and
# uploads. Under 8 minutes; a part that fails or takes too long is recorded and the next one runs.
#
#   tools/device-check.sh [--dry-run] [FOLDER]      FOLDER (out/device-check): summary.json,
#                                                   summary.txt, and a log or JSON file for each part
#   PYTHON=python3.12  its torch is used if it sees the device; else torch is installed
#   WHEELS=folder      wheels to install from on a machine without a package index
#
# Exit code: 0 all parts passed, 1 a part failed, 2 there is no device or nothing could be set up.
set -uo pipefail
cd "$(dirname "$0")/.."

LIMIT_S=470
parts() {  # name | most seconds | command; "$bin" is the environment's folder of programs,
         # "$cuda" the major version of torch's CUDA
    cat <<'EOF'
cupy|60|"${pip[@]}" install --progress-bar off --retries 1 "${index[@]}" "cupy-cuda${cuda}x>=14"
doctor|30|"$bin/ape-stream" doctor
tests|100|"$bin/python" -m pytest -q -p no:cacheprovider -m "gpu and not slow" tests/ops tests/model
ops-cupy|50|env APE_STREAM_LAUNCHER=cupy "$bin/python" -m pytest -q -p no:cacheprovider -k cuda tests/ops/backends
ops-driver|50|env APE_STREAM_LAUNCHER=driver "$bin/python" -m pytest -q -p no:cacheprovider -k cuda tests/ops/backends
ops-float32|30|"$bin/ape-stream" bench ops --json --case all --device cuda --dtype float32
ops-bfloat16|30|"$bin/ape-stream" bench ops --json --case all --device cuda --dtype bfloat16
model-Ti|50|"$bin/ape-stream" bench model --json --model Ti --device cuda --dtype float32 --dtype bfloat16
model-D|80|"$bin/ape-stream" bench model --json --model D --device cuda --dtype float32 --dtype bfloat16
names-Ti|40|"$bin/ape-stream" bench model --json --model Ti --device cuda --dtype bfloat16 --vocabulary
names-D|50|"$bin/ape-stream" bench model --json --model D --device cuda --dtype bfloat16 --vocabulary
replay-Ti|40|"$bin/python" tools/device_replay.py Ti
replay-D|50|"$bin/python" tools/device_replay.py D
sanitizer|120|"$bin/python" -m pytest -q -p no:cacheprovider -m "gpu and slow" tests/ops
EOF
}

dry=''
[ "${1:-}" = --dry-run ] && dry=1 && shift
out=${1:-out/device-check}
if [ "$dry" ]; then
    parts | while IFS='|' read -r name most command; do
        printf '%-14s at most %3s s  %s\n' "$name" "$most" "$(sed 's|"$bin/\([^"]*\)"|\1|' <<<"$command")"
    done
    exit 0
fi

stop() { echo "device-check: $1" >&2 && exit 2; }
python=${PYTHON:-python3}
sees_cuda() { "$1" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }
sees_cuda "$python" || nvidia-smi -L >/dev/null 2>&1 || stop "no CUDA device found, nothing was run"

set_up() {  # a virtual environment in $out/venv, on top of a torch that sees the device
    local known=()
    "$python" -m venv --without-pip "$out/venv" || return
    if sees_cuda "$python"; then  # keep that torch
        site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
        echo "import site; site.addsitedir('$(site "$python")')" >"$(site "$bin/python")/below.pth"
        known=("torch==$("$python" -c 'import torch; print(torch.__version__)')")
    fi
    timeout 150 "${pip[@]}" install --progress-bar off "${index[@]}" \
        "${known[@]}" -e . 'cuda-bindings>=13,<14' 'nvidia-cuda-nvrtc>=13,<14' \
        pytest pytest-timeout hypothesis ||
        "${pip[@]}" install --no-deps --no-build-isolation --no-index -e . || return
    sees_cuda "$bin/python" && "$bin/ape-stream" --help >/dev/null
}

mkdir -p "$out"
out=$(cd "$out" && pwd)
bin=$out/venv/bin pip=("$python" -m pip --python "$out/venv/bin/python" --no-input) index=()
[ -z "${WHEELS:-}" ] || index=(--no-index --find-links "$WHEELS")
rm -f "$out"/*.json "$out"/*.log "$out"/*.txt "$out"/parts.tsv
SECONDS=0
set_up >"$out/setup.log" 2>&1 || stop "setting up failed: see $out/setup.log"
# cuda-bindings searches NVRTC in the environment's own folder, not in the one below it.
nvrtc=$("$bin/python" -c 'import glob, sys; print(*[file for path in sys.path
    for file in glob.glob(f"{path}/nvidia/**/lib/libnvrtc.so.1?", recursive=True)][:1])')
[ -z "$nvrtc" ] || export LD_LIBRARY_PATH=${nvrtc%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
cuda=$("$bin/python" -c 'import torch; print((torch.version.cuda or "").partition(".")[0])')
printf 'setup\t0\t%s\n' "$SECONDS" >"$out/parts.tsv"
export APE_STREAM_CACHE=$out/cache PYTHONUNBUFFERED=1

failed=0
while IFS='|' read -r name most command <&3; do
    left=$((LIMIT_S - SECONDS)) started=$SECONDS
    [ "$most" -gt "$left" ] && most=$left
    file=$out/$name.log
    [[ $command == *--json* || $command == *replay* ]] && file=$out/$name.json
    if [ "$most" -lt 5 ]; then
        code=124
    else
        eval "timeout --kill-after 5 $most $command" >"$file" 2>"$out/$name.err.log"
        code=$?
    fi
    [ "$code" -eq 0 ] || failed=1
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - started))" >>"$out/parts.tsv"
    "$bin/python" tools/device_report.py "$out"  # now: a machine may be taken away
    echo "$name: exit $code after $((SECONDS - started)) s"
done 3< <(parts)
cat "$out/summary.txt"
exit $failed
