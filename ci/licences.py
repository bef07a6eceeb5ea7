"""Checks where every dependency comes from and under which licence it is.

Fails with one line per crate whose licence is not on the list below or whose source is not the
crates registry, and when a vendored file lacks its licence file. Names the crates that are built in
more than one version, for information.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
VENDORED = {
    "src/page/vendor/mpegts.js": "src/page/vendor/mpegts.LICENSE.txt",
    # Bundled into the console and the player pages.
    "src/page/built/page/shared.js": "src/page/built/preact.LICENSE.txt",
    "src/page/built/page/hls.js.gz": "src/page/built/hls.LICENSE.txt",
    "src/page/built/page/dash.js.gz": "src/page/built/dash.LICENSE.txt",
}
# Packages of npm; what is only needed to build them ("dev") ends up in no file of ours.
PACKAGES = "src/console/package-lock.json"


def allowed(expression):
    """Whether an SPDX expression can be satisfied by the list: any OR branch, all its AND parts."""
    tokens = re.findall(r"\(|\)|[^()\s]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            other = both()
            value = value or other
        return value

    def both():
        value = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            other = single()
            value = value and other
        return value

    def single():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token += " WITH " + tokens.pop(0)
        return token in ALLOWED

    return either()


def main():
    # What is only built for other systems is not part of what is shipped.
    platform = "x86_64-unknown-linux-gnu"
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += ["--filter-platform", platform]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    members = set(metadata["workspace_members"])
    findings = []
    versions = collections.defaultdict(set)
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].add(package["version"])
        if not package["license"] or not allowed(package["license"]):
            findings.append(f"{name}: licence {package['license']} is not on the list")
        if package["id"] not in members and package["source"] != REGISTRY:
            findings.append(f"{name}: comes from {package['source']}, not from the registry")
    for path, licence in VENDORED.items():
        if not pathlib.Path(path).exists() or not pathlib.Path(licence).exists():
            findings.append(f"{path}: the file or its licence {licence} is missing")
    for path, package in json.loads(pathlib.Path(PACKAGES).read_text())["packages"].items():
        if path and not package.get("dev") and not allowed(package.get("license", "none")):
            findings.append(f"{path}: licence {package.get('license')} is not on the list")
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            print(f"several versions: {name} {', '.join(sorted(found))}")
    print(f"{len(metadata['packages'])} crates, {len(findings)} findings")
    for finding in findings:
        print(f"error: {finding}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
