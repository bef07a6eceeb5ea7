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

# The licence of a library and of what is in it: its notes, then the texts of packages.
licence() {
  local package=$1 notes=$2 text
  node -p "const p = require('./node_modules/$package/package.json'); p.name + ' ' + p.version"
  shift 2
  cat "node_modules/$package"/LICENSE*
  printf '\n----\n\n'
  cat "licences/$notes"
  for package in "$@"; do
    printf '\n----\n\n%s\n\n' "$package"
    for text in "node_modules/$package"/[Ll][Ii][Cc][Ee][Nn][Ss][Ee]*; do cat "$text"; done
  done
}

# What is beside the bundle in the folder.
licences() {
  cp node_modules/preact/LICENSE "$1/preact.LICENSE.txt"
  licence hls.js hls.txt @svta/cml-utils >"$1/hls.LICENSE.txt"
  licence dashjs dash.txt codem-isoboxer imsc sax bcp-47-match fast-deep-equal html-entities \
    path-browserify @svta/cml-utils >"$1/dash.LICENSE.txt"
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
  licences "$built"
  sums >"$built/SOURCES.sha256"
  exit 0
fi
# What is compressed is compared as it is inside: not every zlib makes the same of it.
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
mkdir "$again/new"
npx vite build --logLevel warn --outDir "$again/new" --emptyOutDir
licences "$again/new"
cp -r "$built" "$again/committed"
find "$again" -name '*.gz' -exec gunzip {} +
if ! diff -r --exclude=SOURCES.sha256 "$again/new" "$again/committed"; then
  echo "error: src/page/built is not what src/console gives; run ci/console.sh" >&2
  exit 1
fi
echo "src/page/built is what src/console gives"
