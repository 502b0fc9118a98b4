#!/usr/bin/env bash
# Measures tollgate against nginx and a direct connection, prints one table, and keeps it under benches/results/.
# Arguments go to the benchmark: names of measures, --rounds=N, --scale=F.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nginx >/dev/null; then
    echo "installing nginx-light" >&2
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update -qq
    # Installed to be measured, not to serve: nothing is started.
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
fi
# A thousand streams are two thousand descriptors in each process.
ulimit -n "$(ulimit -Hn)"

profile=${BENCH_PROFILE:-release}
cargo bench --profile "$profile" --bench exchange --no-run
mkdir -p benches/results
result="benches/results/$(date -u +%Y-%m-%dT%H%MZ).txt"
{
    echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), profile $profile"
    timeout 480 cargo bench --quiet --profile "$profile" --bench exchange -- "$@"
} | tee "$result"
echo "kept in $result" >&2
