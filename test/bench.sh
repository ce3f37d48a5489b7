#!/usr/bin/env bash
# Benchmarks of the code, then the load tool against a server of its own on a free port:
# idle connections, one large room and many rooms, in both dialects. Every delivery is
# verified; a lost one fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

"$go" test -run '^$' -bench . -benchtime 200ms ./internal/{wire,hub,outbox,socket,wsconn} ./internal/engine/memory

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
CGO_ENABLED=0 "$go" build -trimpath -o "$work/letshare-server" ./cmd/server
key=bench1.key001:$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
secret=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')

start() { # a fresh server for each measurement of memory
	[ -z "$server" ] || { kill "$server"; wait "$server" 2>/dev/null || true; }
	(cd "$work" && exec env MODE=local LETSHARE_SERVER_PORT=0 LETSHARE_API_KEYS="$key" LETSHARE_JWT_SECRET="$secret" \
		LETSHARE_WEBSOCKET_MAX_ROOM_USERS=100000 LETSHARE_LOG_LEVEL=info ./letshare-server serve >"$work/out.log" 2>/dev/null) &
	server=$!
	for _ in $(seq 100); do
		port=$(sed -n 's/.*"msg":"listening","address":"[^"]*:\([0-9]*\)".*/\1/p' "$work/out.log")
		[ -z "$port" ] || return 0
		sleep 0.1
	done
	echo "the server did not start" >&2
	exit 1
}

for dialect in ably letshare; do
	for preset in p1 p4 "fanout --rooms 200 --members 50 --rate 400" p9; do
		start
		# shellcheck disable=SC2086 # a preset may have flags
		"$work/letshare-server" load $preset --dialect "$dialect" --url "ws://127.0.0.1:$port" --pid "$server" \
			--key "$key" --jwt-secret "$secret"
	done
done
start
"$work/letshare-server" load p8 --url "ws://127.0.0.1:$port" --pid "$server" --key "$key"
