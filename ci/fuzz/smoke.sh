#!/usr/bin/env bash
# Builds the fuzz targets and runs each of them for a short time:
#
#   ci/fuzz/smoke.sh                    all targets, 6 s each, as many at a time as there are cores
#   SECONDS_EACH=600 ci/fuzz/smoke.sh   longer
#   ci/fuzz/smoke.sh live websocket     these two
#   ci/fuzz/smoke.sh --build            builds them only
#
# Needs stable Rust and a C++ compiler: coverage instrumentation is a pass of the compiler's LLVM,
# switched on by its stable flags, and libFuzzer comes with the crate libfuzzer-sys. New inputs go
# to a folder under the build folder, not to the corpus in the tree; an input that fails goes to
# `ci/fuzz/artifacts`.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${SECONDS_EACH:-6}
jobs=${JOBS:-$(nproc)}
if ! command -v g++ >/dev/null && ! command -v c++ >/dev/null; then
  command -v apt-get >/dev/null || { echo "error: no C++ compiler" >&2; exit 1; }
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" apt-get install -y -qq --no-install-recommends g++
fi

# A build folder of its own: other flags would have everything else built anew.
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are for what is fuzzed and not for build scripts.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
CARGO_TARGET_DIR=$target_dir cargo build --release --target "$triple"
[ "${1:-}" = --build ] && exit
export program=$target_dir/$triple/release/fuzz seconds
export work=$target_dir/work
mkdir -p artifacts "$work"

if [ $# -gt 0 ]; then
  names=("$@")
else
  mapfile -t names < <(sed -n 's/^    ("\([a-z0-9_]*\)", .*),$/\1/p' src/targets/mod.rs)
fi
[ ${#names[@]} -gt 0 ] || { echo "error: no targets" >&2; exit 1; }

run_one() {
  local name=$1 log=$work/$1.log
  mkdir -p "$work/$name"
  # 1 GiB: far over what the limits of one connection add up to, and what a leak passes in time.
  if FUZZ_TARGET=$name "$program" "$work/$name" "corpus/$name" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="artifacts/$name-" >"$log" 2>&1; then
    sed -n "s/^stat::number_of_executed_units: */$name ok, inputs: /p" "$log"
  else
    grep -E 'panicked at|ERROR: libFuzzer|Test unit written' -A1 "$log" | sed "s/^/$name: /" >&2
    echo "error: fuzz target $name failed; its log is $log" >&2
    return 1
  fi
}
export -f run_one
printf '%s\0' "${names[@]}" | xargs -0 -n 1 -P "$jobs" bash -c 'run_one "$0"'
