#!/usr/bin/env bash
# Puts Debian 13's Swift compiler into a folder, on a Debian that has none, and prints the command that runs it:
#     SWIFTC=$(scripts/debian_swift.sh build/swift) make swift-test
# 0.5 GB to fetch, 0.9 GB there: what only debuggers, editors and static programs need stays packed. The folder stands in the
# place of /usr for the compiler and what it makes, and for no other process, so that nothing here is replaced.
set -euo pipefail
root=$(realpath -m "${1:?usage: $0 FOLDER}")
mkdir -p "$root"/apt/{state/lists/partial,cache/archives/partial}
touch "$root/apt/status"  # as if nothing were installed, so that the C library comes too

address=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | sed -n 1p)
[[ $address ]] || { echo "no address of Debian's packages in apt's sources: install a Swift compiler by hand" >&2; exit 1; }
echo "deb $address trixie main" >"$root/apt/sources.list"
apt() {
  apt-get -qq -o Dir::Etc::sourcelist="$root/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$root/apt/state" \
    -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt/cache" "$@" >&2
}

if [[ ! -e $root/unpacked ]]; then
  apt update
  apt install -y --download-only --no-install-recommends swiftlang libc6-dev libstdc++-14-dev
  for package in "$root"/apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --wildcards --exclude='*/share/*' --exclude='*/swift_static/*' \
      --exclude='*/swift/embedded/*' --exclude='*lldb*' --exclude='*sourcekit*' --exclude='*clangd*' --exclude='*InternalSwiftScan*' \
      --exclude='*/libLTO*' --exclude='*/swift-package' --exclude='*/docc' --exclude='*/swift-format' --exclude='*/gcc/*/cc1*'
  done
  rm -r "$root/apt/cache"
  touch "$root/unpacked"
fi

mount=(unshare --mount)
[[ $(id -u) == 0 ]] || mount=(unshare --map-root-user --mount)
command=("${mount[@]}" sh -c 'mount --bind "$0" /usr && exec "$@"' "$root/usr" /usr/libexec/swift/bin/swiftc)
"${command[@]}" --version >&2
printf '%q ' "${command[@]}"
