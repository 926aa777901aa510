#!/usr/bin/env bash
# One part of what a card is needed for, in under eight minutes, from a bare checkout on a machine
# that has CuPy 14, NumPy, networkx, llvmlite and PyTorch, and no network:
#
#     benchmarks/on_a_card.sh --part tests | sanitizer | speed | training [--wheels FOLDER] [-- MORE]
#
# FOLDER (default: wheels beside this checkout's root) holds pure-Python wheels that the machine
# lacks: lark, pytest, pluggy, iniconfig, packaging, pygments; with pytest_xdist and execnet the
# tests run in several processes. They are read where they lie. MORE goes to pytest, or to
# benchmarks.gpu. Leaves PART.json and PART.log in $OUT (default: out); what there was no time for
# stands in both.
set -uo pipefail
cd "$(dirname "$0")/.."

usage="usage: benchmarks/on_a_card.sh --part tests|sanitizer|speed|training [--wheels FOLDER] [-- MORE]"
part=tests wheels=wheels
while [ $# -gt 0 ]; do
    case $#,$1 in
    *,--) shift; break ;;
    1,* | *,[!-]*) part=none; break ;;
    *,--part) part=$2; shift 2 ;;
    *,--wheels) wheels=$2; shift 2 ;;
    *) part=none; break ;;
    esac
done
case $part in tests | sanitizer | speed | training) ;; *) echo "$usage" >&2; exit 2 ;; esac

out=${OUT:-out}
mkdir -p "$out"
log=$out/$part.log json=$out/$part.json
export PYTHONPATH=$PWD:$PWD/tests
for wheel in "$wheels"/*.whl; do
    [ -e "$wheel" ] && PYTHONPATH=$PYTHONPATH:$(realpath "$wheel")
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$scratch} PYTHONDONTWRITEBYTECODE=1
python=${PYTHON:-python3}
limit=${LIMIT:-450} # seconds
started=$(date +%s)

left() { # seconds until the limit, at least one
    local rest=$((limit - $(date +%s) + started))
    echo $((rest > 1 ? rest : 1))
}

several=() # processes: most of the time goes to compiling
if "$python" -c "import xdist" 2>/dev/null; then
    several=(-p xdist -n "$(($(nproc) < 16 ? ($(nproc) + 1) / 2 : 8))")
fi

suite() { # NAME PYTEST...: what happens to each test is in $scratch/NAME.tests as it happens
    CONVDSL_TOLD=$scratch/$1.tests "${wrapped[@]}" "$python" -m pytest -q -o addopts= \
        -p no:cacheprovider -p no:benchmark --strict-config --import-mode=importlib -rfE --durations=15 "${@:2}"
}

sanitizer() { # each has half of the time that is left, the last one all of it
    local tests=(tests/gpu/test_operators.py "$@") tool share worst=0
    [ $# -gt 0 ] || tests+=(-k "conv or linear or matmul or pool or norm or softmax")
    export CONVDSL_SUITE_CACHE=1 # what the first run compiles, the others load
    wrapped=(timeout "$(left)")
    suite plain "${several[@]}" "${tests[@]}" || worst=$?
    for tool in memcheck racecheck initcheck; do
        echo "--- $tool"
        share=$(left)
        [ $tool = initcheck ] || share=$((share / 2))
        wrapped=(timeout "$share" compute-sanitizer --tool $tool --error-exitcode 9
            --target-processes all)
        CONVDSL_CUDA_CHECK=1 suite $tool "${tests[@]}" || worst=$?
    done
    return $worst
}

measured() { # ARGUMENTS...
    timeout "$limit" "$python" -m benchmarks.gpu --json "$json" --seconds 0.5 \
        --stop-after $((limit - 60)) "$@"
}

run() {
    nvidia-smi || true
    rm -f "$json"
    case $part in
    tests) wrapped=(timeout "$limit"); suite tests "${several[@]}" tests/gpu "$@" ;;
    sanitizer)
        if command -v compute-sanitizer; then
            sanitizer "$@"
        else
            echo "compute-sanitizer is not here: it comes with the CUDA toolkit, in its bin"
            return 3
        fi ;;
    speed) measured --batches 1 32 "$@" ;;
    training)
        measured --training --batches 32 256 --models resnet18 resnet50 mobilenet_v2 "$@" ;;
    esac
}

run "$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
commit=$(git rev-parse HEAD 2>/dev/null)
"$python" - "$json" "$part" "$code" "$(($(date +%s) - started))" "$commit" "$log" "$scratch" <<'PY'
import json, pathlib, sys
path, part, code, seconds, commit, log, scratch = sys.argv[1:]
path = pathlib.Path(path)
told = json.loads(path.read_text()) if path.exists() else {}
lines = pathlib.Path(log).read_text(errors="replace").splitlines()
told |= {"part": part, "exit": int(code), "seconds": int(seconds), "commit": commit}
told["last line"] = lines[-1] if lines else ""
for file in sorted(pathlib.Path(scratch).glob("*.tests")):
    tests = [json.loads(line) for line in file.read_text().splitlines()]
    found = {test["name"]: test["outcome"] for test in tests}
    told[file.stem] = {
        "passed": sum(outcome == "passed" for outcome in found.values()),
        "failed": sorted(name for name, outcome in found.items() if outcome == "failed"),
        "skipped": sorted(name for name, outcome in found.items() if outcome == "skipped"),
        "not run": sorted(name for name, outcome in found.items() if outcome == "waiting"),
    }
path.write_text(json.dumps(told, indent=1))
PY
exit "$code"
