#!/usr/bin/env bash
# Measures tollgate against a direct connection, nginx (TLS on both sides, one header set) and three
# proxies that intercept and swap the same header as tollgate does: hudsucker (a program of ours around
# the library, benches/peers/hudsucker), Squid with ssl-bump, and mitmproxy. Prints tables and keeps them
# with what each round said under benches/results/. Twenty minutes, once everything is built, which takes as long.
#
# nginx and Squid come from Debian, mitmproxy from PyPI, hudsucker from crates.io, each as it is there
# today; one that cannot be had is left out, and a line says so.
#
# Arguments go to the benchmark: names of measures (small, handshake, latency, events, streams, bodies,
# idle, hosts, budget, spans, peers), --rounds=N, --scale=F. BENCH_PROFILE=release saves building what is
# shipped.
set -euo pipefail
cd "$(dirname "$0")/.."

sudo=$([ "$(id -u)" = 0 ] || echo sudo)
from_debian() {
    echo "installing $1" >&2
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

# A peer that is missing afterwards is named in the results.
install_peers() {
    local peers=target/peers
    if ! squid -v 2>/dev/null | grep -q -e --with-openssl; then
        from_debian squid-openssl && $sudo systemctl disable --quiet --now squid 2>/dev/null
    fi
    if ! [ -x $peers/mitmproxy/bin/mitmdump ]; then
        echo "installing mitmproxy" >&2
        python3 -m venv $peers/mitmproxy && $peers/mitmproxy/bin/pip install --quiet mitmproxy
    fi
    cargo build --quiet --release --locked --manifest-path benches/peers/hudsucker/Cargo.toml \
        --target-dir $peers/hudsucker
}

command -v nginx >/dev/null || from_debian nginx-light
measures=$(printf '%s\n' "$@" | grep -v -e '^--' || true)
case " ${measures//$'\n'/ } " in
    '  ' | *' peers '*) install_peers || true ;;
esac
# A thousand streams are two thousand descriptors in each process.
ulimit -n "$(ulimit -Hn)"

profile=${BENCH_PROFILE:-dist}
parts=(--bench policy_match --bench inject --bench scan --bench budget_lookup --bench leaf_minting --bench scrub)
bench=(cargo bench --quiet --locked --profile "$profile")
"${bench[@]}" --bench exchange --bench ledger "${parts[@]}" --no-run
mkdir -p benches/results
result="benches/results/$(date -u +%Y-%m-%dT%H%MZ).txt"
{
    echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), profile $profile"
    timeout 1800 "${bench[@]}" --bench exchange -- "$@"
    if [ $# = 0 ]; then
        printf '\nparts of an exchange, in one process (criterion):\n'
        # A long name stands on a line of its own.
        timeout 300 "${bench[@]}" "${parts[@]}" -- --quick --noplot 2>/dev/null |
            awk '/^ratio/ { print } /^[a-z_]+\// { name = $1 } /time:/ { sub(/.*time:/, ""); print name $0 }'
        printf '\nthe ledger, reserve and settle of a call:\n'
        timeout 90 "${bench[@]}" --bench ledger -- 10 2>/dev/null
    fi
} | tee "$result"
echo "kept in $result" >&2
