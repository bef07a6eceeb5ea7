#!/usr/bin/env bash
# Runs every check of the project, or the stages named:
#
#   ci/run.sh                 all stages
#   ci/run.sh fmt e2e         these two
#   ci/run.sh --list          what there is
#
# Needs Debian 12 with Rust (rustfmt and clippy included), git, gcc and python3. What else it needs
# (ffmpeg, Chromium, valgrind, nginx) it installs with apt when it is missing. Everything is built
# in the `ci` profile of Cargo.toml, once, for the tests and for the binary that the end-to-end
# tests run.
set -uo pipefail
cd "$(dirname "$0")/.."

stages=(tools fmt licences console build clippy unit sim kernel e2e fuzz bench docs)
about() {
  case $1 in
    tools) echo "install what is missing" ;;
    fmt) echo "formatting of Rust sources" ;;
    licences) echo "licence and origin of every dependency and vendored file" ;;
    console) echo "the committed bundle of the console against its sources" ;;
    build) echo "the binaries and all test programs" ;;
    clippy) echo "lints, warnings are errors" ;;
    unit) echo "unit tests, layers and tidiness" ;;
    sim) echo "whole shards in the simulator, 200 seeds" ;;
    kernel) echo "kernel behaviour that the code relies on" ;;
    e2e) echo "the real binary with ffmpeg, ffprobe and Chromium" ;;
    fuzz) echo "short run of every fuzz target" ;;
    bench) echo "every bench with small inputs, and a small comparison" ;;
    docs) echo "documentation, its warnings are errors, and its examples" ;;
    *) return 1 ;;
  esac
}

# Seconds that a stage may take; a hanging test must not hang the pipeline.
limit_of() {
  case $1 in
    build) echo 2400 ;;
    # The fuzz targets are built with flags of their own, so with all they need.
    fuzz) echo 1500 ;;
    e2e) echo 1200 ;;
    *) echo 900 ;;
  esac
}

profile=ci
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 RUST_BACKTRACE=1
export RINGCAST_SIM_SEEDS=${RINGCAST_SIM_SEEDS:-200}
target=${CARGO_TARGET_DIR:-target}
# Tests that need something which cannot be had fail instead of passing with a word.
export RINGCAST_CI=1
logs=$target/ci-logs

# Every cargo call names the whole workspace, so that features are unified the same way and nothing
# is built twice; what runs is chosen by target name.
cargo_test() { cargo test --locked --workspace --profile "$profile" --no-fail-fast "$@"; }

# Runs the integration tests of one crate's `tests/` folder, if it has any.
test_folder() {
  local folder=$1 file names=()
  shift
  for file in "$folder"/tests/*.rs; do
    [ -e "$file" ] && names+=(--test "$(basename "$file" .rs)")
  done
  if [ ${#names[@]} -eq 0 ]; then
    echo "$folder has no tests folder"
    return 0
  fi
  cargo_test "${names[@]}" -- "$@"
}

run_tools() {
  local need=() wish command package
  for wish in cc:build-essential ffmpeg:ffmpeg ffprobe:ffmpeg chromium:chromium \
    chromedriver:chromium-driver python3:python3 git:git openssl:openssl \
    valgrind:valgrind curl:curl /usr/sbin/nginx:nginx-light h2load:nghttp2-client; do
    command=${wish%%:*} package=${wish##*:}
    command -v "$command" >/dev/null || need+=("$package")
  done
  # Without any font Chromium draws empty text.
  compgen -G '/usr/share/fonts/*/*' >/dev/null || need+=(fonts-dejavu-core)
  python3 -c 'import ensurepip' 2>/dev/null || need+=(python3-venv)
  for command in cargo rustc; do
    command -v "$command" >/dev/null || { echo "error: $command is not installed"; return 1; }
  done
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || return 1
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || return 1
  if [ ${#need[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || { echo "error: not on Debian, install ${need[*]}"; return 1; }
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    export DEBIAN_FRONTEND=noninteractive
    "${root[@]}" apt-get update -qq || return 1
    "${root[@]}" apt-get install -y -qq --no-install-recommends "${need[@]}" || return 1
  fi
  rustc --version
  ffmpeg -version | head -n 1
  chromium --version 2>/dev/null
  uname -r
}

run_fmt() { cargo fmt --all --check; }

run_licences() { python3 ci/licences.py; }

run_console() { ci/console.sh --check; }

# One call for everything: the tests bring features of shared dependencies with them, so building
# the binaries on their own would compile half of the tree a second time.
run_build() { cargo build --locked --workspace --profile "$profile" --all-targets; }

run_clippy() {
  cargo clippy --locked --workspace --all-targets --profile "$profile" -- -D warnings
}

run_unit() { cargo_test --lib --bins -- --skip sim:: ; }

run_sim() {
  local patch
  # The proof that the simulation catches bugs (ci/planted.sh) takes minutes, so it is not run here;
  # that it still can be is looked at.
  for patch in ci/planted/*.patch; do
    git apply --check "$patch" || { echo "error: $patch does not fit the code any more"; return 1; }
  done
  cargo_test --lib -- sim:: ;
}

run_kernel() { test_folder uring; }

# These look at how fast something is, or whether pictures stall: nothing else may run beside them.
e2e_alone=(api_load fanout players)

# Most end-to-end tests wait for media to pass in real time, so four test programs run at once.
run_e2e() {
  local file name beside=() failed=0
  for file in loadtest/tests/*.rs; do
    name=$(basename "$file" .rs)
    case " ${e2e_alone[*]} " in *" $name "*) ;; *) beside+=("$name") ;; esac
  done
  cargo_test "${beside[@]/#/--test=}" "${e2e_alone[@]/#/--test=}" --no-run || return 1
  export -f cargo_test run_e2e_one
  export profile logs
  # The fuzz targets are built with flags of their own, which takes minutes, and the tests leave
  # most of the processor unused. Whether that goes well is the business of the stage `fuzz`.
  case " ${wanted_stages:-} " in
    *" fuzz "*) nice -n 19 ci/fuzz/smoke.sh --build >"$logs/fuzz-build.txt" 2>&1 & ;;
  esac
  printf '%s\n' "${beside[@]}" | xargs -P 4 -n 1 bash -c 'run_e2e_one "$1"' - || failed=1
  wait
  for name in "${e2e_alone[@]}"; do run_e2e_one "$name" || failed=1; done
  return $failed
}

# One test program; what it says is shown as a whole when it has ended.
run_e2e_one() {
  local code
  cargo_test --test "$1" -- --test-threads=2 >"$logs/e2e-$1.txt" 2>&1
  code=$?
  flock "$logs/e2e.lock" cat "$logs/e2e-$1.txt"
  return $code
}

run_fuzz() {
  if [ -x ci/fuzz/smoke.sh ]; then ci/fuzz/smoke.sh; else echo "no ci/fuzz/smoke.sh"; fi
}

run_bench() {
  if compgen -G 'bench/benches/*.rs' >/dev/null; then
    cargo bench --locked --workspace --profile "$profile" --bench '*' -- --test || return 1
    # For information only: instructions per delivered message, against the recorded count. The
    # program is called as it was built: `cargo run` takes no --workspace, and without that it
    # would build half of the tree with other features.
    cargo build --locked --workspace --quiet --profile "$profile" --all-targets || return 1
    # The comparison as a whole, small: that it runs, not what it says.
    timeout 120 "$target/$profile/compare" --no-build --here --without nginx --players 20 \
      --kbps 600 --windows 0 --protocols rtmp,flv --rounds 1 --seconds 1 || return 1
    local small
    for small in hls ll-hls http2; do
      timeout 90 "$target/$profile/compare" --no-build --here "$small" --quick || return 1
    done
    timeout 60 "$target/$profile/compare" --no-build instructions ||
      echo "instructions were not counted"
  else
    echo "no bench/benches"
  fi
}

run_docs() {
  RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --profile "$profile" &&
    cargo_test --doc
}

# The line of a log that says best what went wrong.
first_error() {
  grep -m1 -E '^(src|uring|bench|loadtest|ci)/[^ ]*:[0-9]+: |^Diff in|^error(\[|:)|^test .*FAILED' \
    "$1" || grep -m1 -E 'panicked at|[Ee]rror' "$1" || tail -n 1 "$1"
}

# Counts of the test programs' closing lines in all logs of this run.
count_tests() {
  cat "${@/%/.log}" | awk '/^test result:/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^failed/) failed += $(i - 1)
        if ($i ~ /^ignored/) ignored += $(i - 1)
      }
    }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }'
}

if [ "${1:-}" = --list ]; then
  for stage in "${stages[@]}"; do printf '%-10s %s\n' "$stage" "$(about "$stage")"; done
  exit 0
fi
if [ "${1:-}" = --run-stage ]; then
  "run_$2"
  exit
fi

wanted=("${@:-${stages[@]}}")
[ $# -eq 0 ] && wanted=("${stages[@]}")
for stage in "${wanted[@]}"; do
  about "$stage" >/dev/null || { echo "ci: no stage '$stage' (ci/run.sh --list)" >&2; exit 2; }
done

export wanted_stages="${wanted[*]}"
mkdir -p "$logs"
began=$SECONDS
table=() done_logs=()
for stage in "${wanted[@]}"; do
  echo "== $stage: $(about "$stage")"
  start=$SECONDS
  log=$logs/$stage.log
  # The stage runs in a process of its own, so that `timeout` can end it with all its children.
  timeout --kill-after=10 "$(limit_of "$stage")" ci/run.sh --run-stage "$stage" 2>&1 </dev/null |
    tee "$log"
  code=${PIPESTATUS[0]}
  table+=("$(printf '%-10s %4d s' "$stage" $((SECONDS - start)))")
  done_logs+=("$logs/$stage")
  if [ "$code" -ne 0 ]; then
    reason=$(first_error "$log")
    [ "$code" -eq 124 ] && reason="no end after $(limit_of "$stage") s"
    printf '%s\n' "${table[@]}"
    echo "ci: stage '$stage' failed: $reason" >&2
    exit 1
  fi
done
printf '%s\n' "${table[@]}"
echo "all        $(printf '%4d' $((SECONDS - began))) s"
case " ${wanted[*]} " in
  *" unit "* | *" sim "* | *" kernel "* | *" e2e "*) count_tests "${done_logs[@]}" ;;
esac
