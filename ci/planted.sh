#!/usr/bin/env bash
# Shows that the tests catch bugs of the kinds they are for: puts each bug of ci/planted/*.patch
# into a copy of the committed tree and expects the test that the patch names to fail.
#
#   ci/planted.sh                        all of them
#   ci/planted.sh lost-wake block-end    these two
#   ci/planted.sh --list                 what there is
#
# Needs what ci/run.sh needs, and io_uring for the bugs in uring/. The work tree is not touched:
# the copy and what is built from it are in <target folder>/planted. It stays there, so a second
# run builds less. Each bug is a build of its own, so this is not part of CI.
#
# After the named test the seeds of the simulation are run (RINGCAST_SIM_SEEDS, 200 as in CI; 0
# leaves them out), and the first seed that fails is told. It runs the bug again in a tree with
# the patch applied: RINGCAST_SIM_SEED=<seed> cargo test --lib sim::seeds_a -- --nocapture
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# Seconds: a bug that makes a shard hang must not hang this.
test_limit=300
seeds=${RINGCAST_SIM_SEEDS:-200}

header() { sed -n "s/^$2: //p" "$root/ci/planted/$1.patch" | head -n 1; }

names=()
for arg in "$@"; do
  case $arg in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --list)
      for file in ci/planted/*.patch; do
        name=$(basename "$file" .patch)
        printf '%-20s %s\n' "$name" "$(header "$name" 'Caught by')"
      done
      exit 0 ;;
    *)
      if [ ! -f "ci/planted/$arg.patch" ]; then
        echo "no ci/planted/$arg.patch (ci/planted.sh --list)" >&2
        exit 2
      fi
      names+=("$arg") ;;
  esac
done
if [ ${#names[@]} -eq 0 ]; then
  for file in ci/planted/*.patch; do names+=("$(basename "$file" .patch)"); done
fi

case ${CARGO_TARGET_DIR:-target} in
  /*) work=${CARGO_TARGET_DIR:-}/planted ;;
  *) work=$root/${CARGO_TARGET_DIR:-target}/planted ;;
esac
tree=$work/tree
mkdir -p "$work" || exit 1
exec 9>"$work/lock"
flock --nonblock 9 || { echo "another ci/planted.sh runs in $work" >&2; exit 2; }
export CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=1 CARGO_TERM_COLOR=never
export RUST_BACKTRACE=0 RINGCAST_SIM_SEEDS=$seeds
unset RINGCAST_SIM_SEED RINGCAST_SIM_FIRST RINGCAST_SIM_TRACE

# The same path in every run, and every file as new as this run: cargo then builds the project's
# crates again and what they need from others not.
rm -rf "$tree"
mkdir "$tree" || exit 1
git archive HEAD | tar --extract --touch --directory "$tree" || exit 1
git diff --quiet HEAD || echo "planted: uncommitted changes are left out" >&2

# Where a named test is: the simulation is in the library, others are `<package>/tests/<file>`.
where() {
  case $1 in
    */tests/*) echo "--package ${1%%/*} --test $(basename "${1%%.rs*}")" ;;
    *) echo "--package ringcast --lib" ;;
  esac
}

build() { # folder of the test, log
  # shellcheck disable=SC2046 # words on purpose
  (cd "$tree" && cargo test --locked --quiet $(where "$1") --no-run) >"$2" 2>&1 9>&-
}

run() { # test, log; what it did is the exit code: 0 passed, 1 failed, 2 something else
  local code
  # shellcheck disable=SC2046
  (cd "$tree" && timeout --kill-after=10 "$test_limit" \
    cargo test --locked --quiet $(where "$1") -- --exact "${1##* }") >"$2" 2>&1 9>&-
  code=$?
  if [ $code -eq 0 ] && grep -q '^test result: ok. 1 passed' "$2"; then return 0; fi
  if [ $code -ne 124 ] && grep -q '^test result: FAILED. 0 passed; 1 failed' "$2"; then return 1; fi
  return 2
}

# The lowest seed that fails, if the patch is one that the simulation can see.
first_seed() { # log
  (cd "$tree" && timeout --kill-after=10 "$test_limit" \
    cargo test --locked --quiet --package ringcast --lib -- sim::seeds_) >"$1" 2>&1 9>&-
  grep -oP 'simulation seed \K[0-9]+(?= failed)' "$1" | sort -n | head -n 1
}

table=() missed=0
row() { table+=("$(printf '%-20s %-11s %6s %6s  %s' "$@")"); }

began=$SECONDS
echo "planted: without any bug: building"
for name in "${names[@]}"; do
  caught_by=$(header "$name" 'Caught by')
  if ! build "$caught_by" "$work/none.log"; then
    echo "planted: the tree without any bug does not build:" >&2
    grep -m3 -A4 '^error' "$work/none.log" >&2
    exit 1
  fi
  if ! run "$caught_by" "$work/none.log"; then
    echo "planted: without any bug '$caught_by' does not pass:" >&2
    tail -n 20 "$work/none.log" >&2
    exit 1
  fi
done
echo "planted: without any bug: the named tests pass, after $((SECONDS - began)) s"

number=0
for name in "${names[@]}"; do
  number=$((number + 1))
  start=$SECONDS
  caught_by=$(header "$name" 'Caught by')
  log=$work/$name.log
  echo "planted: $number/${#names[@]} $name: building"
  # The ceiling keeps git from taking the tree for a folder of the repository around it.
  if ! (cd "$tree" && GIT_CEILING_DIRECTORIES=$work git apply "$root/ci/planted/$name.patch"); then
    echo "planted: $name: the patch does not apply to this tree" >&2
    row "$name" 'NO PATCH' - - "$caught_by"
    missed=1
    continue
  fi
  if ! build "$caught_by" "$log"; then
    echo "planted: $name: does not build:" >&2
    grep -m3 -A4 '^error' "$log" >&2
    row "$name" 'NO BUILD' - - "$caught_by"
    missed=1
  else
    run "$caught_by" "$log"
    case $? in
      0) verdict='NOT CAUGHT' missed=1 ;;
      1) verdict=caught ;;
      *) verdict='NO RESULT' missed=1; tail -n 5 "$log" >&2 ;;
    esac
    echo "planted: $name: $verdict by $caught_by"
    grep -A1 'panicked at' "$log" | grep -vE 'panicked at|^--' | head -n 1 | cut -c1-120 |
      sed 's/^/    /'
    seed=-
    case $caught_by in
      sim::*)
        if [ "$seeds" != 0 ]; then
          seed=$(first_seed "$work/$name-seeds.log")
          echo "planted: $name: first of $seeds seeds: ${seed:-none}"
        fi ;;
    esac
    row "$name" "$verdict" "${seed:-none}" "$((SECONDS - start)) s" "$caught_by"
  fi
  (cd "$tree" && GIT_CEILING_DIRECTORIES=$work git apply --reverse \
    "$root/ci/planted/$name.patch") || exit 1
done

echo
printf '%-20s %-11s %6s %6s  %s\n' bug verdict seed time 'test'
printf '%s\n' "${table[@]}"
echo "$((SECONDS - began)) s, $(git rev-parse --short HEAD), $(date -u +%F)"
exit $missed
