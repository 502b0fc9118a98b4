#!/usr/bin/env bash
# Measures tollgate against nginx and a direct connection, prints one table, and keeps it with what
# each round said under benches/results/. Seven minutes, once everything is built.
#
# Arguments go to the benchmark: names of measures (small, handshake, latency, events, streams, bodies, idle,
# hosts, budget, spans), --rounds=N, --scale=F. BENCH_PROFILE=release saves building what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nginx >/dev/null; then
    echo "installing nginx-light" >&2
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
fi
# A thousand streams are two thousand descriptors in each process.
ulimit -n "$(ulimit -Hn)"

profile=${BENCH_PROFILE:-dist}
parts=(--bench policy_match --bench inject --bench scan --bench budget_lookup --bench leaf_minting)
bench=(cargo bench --quiet --locked --profile "$profile")
"${bench[@]}" --bench exchange --bench ledger "${parts[@]}" --no-run
mkdir -p benches/results
result="benches/results/$(date -u +%Y-%m-%dT%H%MZ).txt"
{
    echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), profile $profile"
    timeout 540 "${bench[@]}" --bench exchange -- "$@"
    if [ $# = 0 ]; then
        printf '\nparts of an exchange, in one process (criterion):\n'
        # A long name stands on a line of its own.
        timeout 120 "${bench[@]}" "${parts[@]}" -- --quick --noplot 2>/dev/null |
            awk '/^ratio/ { print } /^[a-z_]+\// { name = $1 } /time:/ { sub(/.*time:/, ""); print name $0 }'
        printf '\nthe ledger, reserve and settle of a call:\n'
        timeout 90 "${bench[@]}" --bench ledger -- 10 2>/dev/null
    fi
} | tee "$result"
echo "kept in $result" >&2
