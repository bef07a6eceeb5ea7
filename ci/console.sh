#!/usr/bin/env bash
# Builds the console and the player pages from src/console into src/page/built.
#   ci/console.sh           build
#   ci/console.sh --check   fail when the committed bundle is not what the sources give
set -euo pipefail
cd "$(dirname "$0")/../src/console"

built=../page/built

# What the bundle is made of, so that a test without Node can see whether it is out of date.
sums() {
  find . -name node_modules -prune -o -type f ! -name README.md -print | LC_ALL=C sort |
    xargs sha256sum
}

if [ "${1:-}" = --check ]; then
  if ! diff <(sums) "$built/SOURCES.sha256"; then
    echo "error: src/page/built is older than src/console; run ci/console.sh" >&2
    exit 1
  fi
  command -v npm >/dev/null || { echo "only sums were compared: npm is not installed"; exit 0; }
fi
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  if ! npm ci --no-audit --no-fund --loglevel=error; then
    [ "${1:-}" = --check ] || exit 1
    echo "only sums were compared: the packages cannot be had"
    exit 0
  fi
fi
npm run --silent check
if [ "${1:-}" != --check ]; then
  npx vite build --logLevel warn
  cp node_modules/preact/LICENSE "$built/preact.LICENSE.txt"
  sums >"$built/SOURCES.sha256"
  exit 0
fi
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
npx vite build --logLevel warn --outDir "$again" --emptyOutDir
if ! diff -r --exclude=SOURCES.sha256 --exclude=preact.LICENSE.txt "$again" "$built"; then
  echo "error: src/page/built is not what src/console gives; run ci/console.sh" >&2
  exit 1
fi
echo "src/page/built is what src/console gives"
