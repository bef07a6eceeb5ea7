#!/usr/bin/env bash
# Shows that the simulation catches bugs: puts each bug of ci/planted/*.patch into a copy of the
# committed tree, runs the simulation there, and expects it to fail.
#
#   ci/planted.sh                        all of them
#   ci/planted.sh lost-wake block-end    these two
#
# Not part of CI: every bug is a build of its own. RINGCAST_SIM_SEEDS is how many seeds are tried
# (200, as in CI). The seed that is printed runs the bug again in a tree with the patch applied:
#   RINGCAST_SIM_SEED=<seed> cargo test --lib sim::seeds_a -- --nocapture
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD

copy=$(mktemp -d)
trap 'git -C "$root" worktree remove --force "$copy/tree" 2>/dev/null; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree" HEAD || exit 1
# One target folder for all bugs, so that dependencies are built once.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/planted
export RUST_BACKTRACE=0 CARGO_TERM_COLOR=never

names=("$@")
if [ $# -eq 0 ]; then
  for file in ci/planted/*.patch; do names+=("$(basename "$file" .patch)"); done
fi

missed=0
for name in "${names[@]}"; do
  patch=$root/ci/planted/$name.patch
  log=$copy/$name.log
  git -C "$copy/tree" checkout --quiet -- . || exit 1
  if ! git -C "$copy/tree" apply "$patch"; then
    echo "$name: the patch does not apply to this tree" >&2
    missed=1
    continue
  fi
  start=$SECONDS
  if ! (cd "$copy/tree" && cargo test --quiet -p ringcast --lib --no-run) >"$log" 2>&1; then
    echo "$name: does not build:" >&2
    grep -m3 -A4 '^error' "$log" >&2
    missed=1
    continue
  fi
  built=$((SECONDS - start))
  # The four lanes together are all the seeds.
  if (cd "$copy/tree" && timeout 900 cargo test --quiet -p ringcast --lib sim::seeds_) \
    >"$log" 2>&1; then
    echo "$name: NOT caught by ${RINGCAST_SIM_SEEDS:-200} seeds" >&2
    missed=1
    continue
  fi
  seeds=$(grep -oP 'simulation seed \K[0-9]+(?= failed)' "$log" | sort -n | uniq)
  if [ -z "$seeds" ]; then
    echo "$name: the run failed without naming a seed:" >&2
    tail -n 5 "$log" >&2
    missed=1
    continue
  fi
  echo "$name: caught by seed $(echo "$seeds" | head -n 1), built in $built s. In the lanes' first:"
  grep -A1 'panicked at' "$log" | grep -vE 'panicked at|^--' | cut -c1-140 | sed 's/^/    /'
done
exit $missed
