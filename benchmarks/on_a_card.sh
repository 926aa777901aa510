#!/usr/bin/env bash
# One part of what a card is needed for, in under eight minutes, from a bare checkout on a machine
# that has CuPy 14, NumPy, networkx, llvmlite and PyTorch, and no network:
#
#     benchmarks/on_a_card.sh --part tests | sanitizer | speed | training [--wheels FOLDER]
#
# FOLDER (default: wheels beside this checkout's root) holds pure-Python wheels that the machine
# lacks: lark, pytest, pluggy, iniconfig, packaging, pygments. They are read where they lie. Leaves
# PART.json and PART.log in $OUT (default: out).
set -uo pipefail
cd "$(dirname "$0")/.."

part=tests wheels=wheels
while [ $# -gt 0 ]; do
    case $1 in
    --part) part=$2; shift 2 ;;
    --wheels) wheels=$2; shift 2 ;;
    *) echo "usage: benchmarks/on_a_card.sh --part tests|sanitizer|speed|training [--wheels FOLDER]" >&2; exit 2 ;;
    esac
done
out=${OUT:-out}
mkdir -p "$out"
log=$out/$part.log json=$out/$part.json
export PYTHONPATH=$PWD:$PWD/tests
for wheel in "$wheels"/*.whl; do
    [ -e "$wheel" ] && PYTHONPATH=$PYTHONPATH:$(realpath "$wheel")
done
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$(mktemp -d)} PYTHONDONTWRITEBYTECODE=1
python=${PYTHON:-python3}
limit=${LIMIT:-450} # seconds
started=$(date +%s)

pytest() { # FILES...: what could not be run in time is in the log as what is missing there
    timeout "$limit" "$python" -m pytest -q -o addopts= -p no:cacheprovider --strict-config \
        --import-mode=importlib -rfE --durations=15 "$@"
}

run() {
    nvidia-smi || true
    case $part in
    tests) pytest tests/gpu ;;
    sanitizer)
        for tool in memcheck racecheck; do
            CONVDSL_CUDA_CHECK=1 CUPY_CACHE_DIR=$XDG_CACHE_HOME timeout $((limit / 2)) \
                compute-sanitizer --tool $tool --error-exitcode 9 --target-processes all \
                "$python" -m pytest -q -o addopts= -p no:cacheprovider --import-mode=importlib \
                tests/gpu/test_operators.py -k "${SANITIZED:-conv or linear or matmul or pool or norm or softmax}" ||
                return 1
        done ;;
    speed) "$python" -m benchmarks.gpu --json "$json" --seconds 0.5 --stop-after $((limit - 60)) ;;
    training)
        "$python" -m benchmarks.gpu --training --batches 32 256 --json "$json" --seconds 0.5 \
            --models resnet18 resnet50 mobilenet_v2 --stop-after $((limit - 60)) ;;
    *) echo "no part $part: tests, sanitizer, speed, training" >&2; return 2 ;;
    esac
}

run 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
[ -e "$json" ] || printf '{}' > "$json"
"$python" - "$json" "$part" "$code" "$(($(date +%s) - started))" "$(git rev-parse HEAD 2>/dev/null)" "$(tail -n 1 "$log")" <<'PY'
import json, pathlib, sys
path, part, code, seconds, commit, last = sys.argv[1:]
told = json.loads(pathlib.Path(path).read_text())
told |= {"part": part, "exit": int(code), "seconds": int(seconds), "commit": commit, "last line": last}
pathlib.Path(path).write_text(json.dumps(told, indent=1))
PY
exit "$code"
