#!/usr/bin/env bash
# Installs what the tests need and is not there: npm packages always, Debian packages when
# this runs as root on a system with apt. What it cannot install, it names.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # command, Debian package, options of apt-get install
	command -v "$1" >/dev/null 2>&1 && return
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		echo "deps: installing $2"
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${@:3}" "$2" >/dev/null
		return
	fi
	echo "deps: '$1' is missing: install the package $2 (Debian) or its like" >&2
	exit 1
}

need go golang
need gcc gcc # for the race detector
need node nodejs
need npm npm
need curl curl # for the examples of docs/rest.md and docs/admin.md
# For the tests of the Redis engine, which start servers of their own.
need redis-server redis-server
need redis-sentinel redis-sentinel
need redis-cli redis-tools
# For the tests in a browser; CHROMIUM may be the path of another one.
[ -n "${CHROMIUM:-}" ] || need chromium chromium --no-install-recommends

if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 10) ? 0 : 1)'; then
	echo "deps: node $(node --version) is too old for the SDK tests: install node 20.10 or later" >&2
	exit 1
fi

# npm ci is repeated only when the lock file changed.
for dir in test/sdk/js internal/wsconn/testdata; do
	[ -f "$dir/package-lock.json" ] || continue
	stamp="$dir/node_modules/.installed"
	if [ ! -f "$stamp" ] || ! cmp -s "$stamp" "$dir/package-lock.json"; then
		echo "deps: npm ci in $dir"
		(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
		cp "$dir/package-lock.json" "$stamp"
	fi
done
