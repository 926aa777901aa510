#!/usr/bin/env bash
# One part of what a card is needed for, in under eight minutes, from a bare checkout on a machine
# that has CuPy 14, NumPy, networkx, llvmlite and PyTorch, and no network:
#
#     benchmarks/on_a_card.sh --part tests | sanitizer | speed | training [--wheels FOLDER] [-- MORE]
#     benchmarks/on_a_card.sh --part all [--wheels FOLDER]
#
# `all` is the first of each part, what is compiled in common, in nine minutes together.
#
# FOLDER (default: wheels beside this checkout's root) holds pure-Python wheels that the machine
# lacks: lark, pytest, pluggy, iniconfig, packaging, pygments; with pytest_xdist and execnet the
# tests run in several processes. They are read where they lie. MORE goes to pytest, or to
# benchmarks.gpu. Leaves PART.json and PART.log in $OUT (default: out), of `all` those of each part;
# what there was no time for stands in both. The JSON is written again and again, so that a run
# that somebody ends has told what it has. $LIMIT: seconds.
set -uo pipefail
cd "$(dirname "$0")/.."

usage="usage: benchmarks/on_a_card.sh --part tests|sanitizer|speed|training|all [--wheels FOLDER] [-- MORE]"
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
[ "$part" = all ] && [ $# -gt 0 ] && part=none # MORE is of one part
case $part in tests | sanitizer | speed | training | all) ;; *) echo "$usage" >&2; exit 2 ;; esac

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
limit=${LIMIT:-$([ "$part" = all ] && echo 540 || echo 450)}
tools=${TOOLS:-memcheck racecheck initcheck}
files=(tests/gpu/test_{products,networks,operators,arrays}.py)
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

part_of_all() { # NUMERATOR DENOMINATOR PART MORE...: with so much of the time that is left
    echo "=== $3"
    LIMIT=$(($(left) * $1 / $2)) "$BASH" benchmarks/on_a_card.sh --part "$3" --wheels "$wheels" -- "${@:4}" || worst=$?
}

all() { # what is least known comes first: right, then fast
    local worst=0
    export CONVDSL_SUITE_CACHE=1 XDG_CACHE_HOME OUT=$out
    part_of_all 3 10 tests "${files[@]}"
    part_of_all 4 10 speed --batches 32 --precisions high medium
    part_of_all 2 3 training --batches 32 --precisions high medium
    TOOLS=initcheck part_of_all 1 1 sanitizer -k "conv or max_pool or batch_norm"
    return $worst
}

sanitizer() { # each has half of the time that is left, the last one all of it
    local tests=(tests/gpu/test_operators.py "$@") tool share worst=0
    [ $# -gt 0 ] || tests+=(-k "conv or linear or matmul or pool or norm or softmax")
    export CONVDSL_SUITE_CACHE=1 # what the first run compiles, the others load
    wrapped=(timeout "$(left)")
    suite plain "${several[@]}" "${tests[@]}" || worst=$?
    for tool in $tools; do
        echo "--- $tool"
        share=$(left)
        [ "$tool" = "${tools##* }" ] || share=$((share / 2))
        wrapped=(timeout "$share" compute-sanitizer --tool "$tool" --error-exitcode 9
            --target-processes all)
        CONVDSL_CUDA_CHECK=1 suite "$tool" "${tests[@]}" || worst=$?
    done
    return $worst
}

measured() { # ARGUMENTS...
    timeout "$limit" "$python" -m benchmarks.gpu --json "$scratch/measured" --seconds 0.5 \
        --stop-after $((limit - limit / 7)) "$@"
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
    speed) measured --batches 32 1 --precisions high medium highest "$@" ;;
    training)
        measured --training --batches 32 256 --precisions high medium highest "$@" ;;
    esac
}

tell() { # CODE: what is known so far, whole at any time
    "$python" - "$json" "$part" "${1:-}" "$(($(date +%s) - started))" "$commit" "$log" "$scratch" <<'PY'
import json, pathlib, sys
path, part, code, seconds, commit, log, scratch = sys.argv[1:]
path = pathlib.Path(path)
measured = pathlib.Path(scratch) / "measured"
told = json.loads(measured.read_text()) if measured.exists() else {}
log = pathlib.Path(log)
lines = log.read_text(errors="replace").splitlines() if log.exists() else []
ended = int(code) if code else None
told |= {"part": part, "exit": ended, "seconds": int(seconds), "commit": commit}
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
new = path.with_suffix(".new")
new.write_text(json.dumps(told, indent=1))
new.replace(path)
PY
}

commit=$(git rev-parse HEAD 2>/dev/null)
if [ "$part" = all ]; then
    all
    exit
fi
touch "$scratch/running"
goes_on() { [ -e "$scratch/running" ] && kill -0 $$; } # not if somebody has killed it
{ while goes_on; do
    tell ""
    for _ in {1..10}; do goes_on && sleep 1; done
done; } >/dev/null 2>&1 &
run "$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
rm "$scratch/running"
wait
tell "$code"
exit "$code"
