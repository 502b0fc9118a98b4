#!/usr/bin/env bash
# Installs the real clients that the integration tests drive into .clients/, by name and pinned version.
# Run again at will: it is quick when nothing is to do. A client that cannot be installed never fails
# the run; `name: reason` goes to .clients/missing and its tests show a visible skip.
set -u
cd "$(dirname "$0")/.."

PYTHON_PACKAGES="anthropic==2.11.0 openai==3.52.0 requests==2.34.2 httpx==0.28.1 grpcio==1.85.1 rotel==0.0.1a15"
NODE_PACKAGES="@anthropic-ai/sdk@1.11.0 openai@6.49.0 undici@7.30.2"
GRAFANA_PACKAGES="@grafana/schema@13.2.3 typescript@5.9.3"
CLAUDE=@anthropic-ai/claude-code@2.1.197
CODEX=@openai/codex@0.169.0

clients=$PWD/.clients
stamp=$clients/stamp
log=$clients/setup.log
bin=$clients/node/node_modules/.bin
wanted="4 $PYTHON_PACKAGES $NODE_PACKAGES $GRAFANA_PACKAGES $CLAUDE $CODEX"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    cat "$clients/missing" >&2 # to try those again: rm .clients/stamp
    exit 0
fi
mkdir -p "$clients/node"
: >"$clients/missing"
: >"$log"

missing() { # name, reason
    echo "$1: $2" | tee -a "$clients/missing" >&2
}
have() { command -v "$1" >/dev/null 2>&1; }
last_line() { grep -v '^ *$' "$log" | tail -n 1 | cut -c 1-160; }

# --- the distribution's programs
packages=""
have curl || packages="$packages curl"
have git || packages="$packages git"
have gh || packages="$packages gh"
have openssl || packages="$packages openssl"
have strace || packages="$packages strace"
have faketime || packages="$packages faketime"
have npm || packages="$packages nodejs npm"
python3 -c 'import venv, ensurepip' 2>/dev/null || packages="$packages python3-venv"
if [ -n "$packages" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >>"$log" 2>&1; }
    if ! have apt-get; then
        echo "no apt-get here" >>"$log"
    elif [ -n "$as_root" ] && ! have sudo; then
        echo "neither root nor sudo: run apt-get install$packages" >>"$log"
    else
        for package in $packages; do # one by one: a package that is not there must not keep out the others
            install "$package" || { $as_root apt-get update >>"$log" 2>&1 && install "$package"; }
        done
    fi
fi
for program in curl git gh node openssl strace faketime; do
    have "$program" || missing "$program" "not on PATH and not installed: $(last_line)"
done

# --- Prometheus. Only unpacked: installed, it would run as a service.
prometheus=$clients/prometheus
unpack_prometheus() {
    mkdir -p "$prometheus" && (cd "$prometheus" && apt-get download prometheus && dpkg -x prometheus_*.deb .) >>"$log" 2>&1
}
if ! have promtool && [ ! -x "$prometheus/usr/bin/promtool" ]; then
    unpack_prometheus || { ${as_root:-} apt-get update >>"$log" 2>&1 && unpack_prometheus; } ||
        missing promtool "apt-get download prometheus failed: $(last_line)"
fi

# --- Python
if python3 -m venv "$clients/py" >>"$log" 2>&1; then
    for package in $PYTHON_PACKAGES; do
        "$clients/py/bin/pip" install --quiet --disable-pip-version-check "$package" >>"$log" 2>&1 ||
            missing "python-${package%%=*}" "pip install $package failed: $(last_line)"
    done
else
    missing python "python3 -m venv failed: $(last_line)"
fi

# --- Node. The cache lives beside the packages: a root user's ~/.npm may belong to somebody else.
npm_install() {
    (cd "$clients/node" && npm install --no-audit --no-fund --no-progress --cache "$clients/npm-cache" "$@") >>"$log" 2>&1
}
if have npm; then
    [ -f "$clients/node/package.json" ] || echo '{"private":true}' >"$clients/node/package.json"
    # shellcheck disable=SC2086 # a list of words on purpose
    npm_install $NODE_PACKAGES || missing node-sdks "npm install failed: $(last_line)"
    # shellcheck disable=SC2086 # the same
    npm_install $GRAFANA_PACKAGES || missing tsc "npm install $GRAFANA_PACKAGES failed: $(last_line)"
    npm_install "$CLAUDE" || missing claude "npm install $CLAUDE failed: $(last_line)"
    npm_install "$CODEX" || missing codex "npm install $CODEX failed: $(last_line)"
    rm -rf "$clients/npm-cache"
else
    missing node-sdks "no npm"
    missing tsc "no npm"
    missing claude "no npm"
    missing codex "no npm"
fi

# --- each must start, not only be there
starts() { # name, program
    grep -q "^$1:" "$clients/missing" && return
    HOME=$(mktemp -d) timeout 60 "$2" --version >>"$log" 2>&1 || missing "$1" "does not start: $(last_line)"
}
# npm may hold back install scripts; Claude Code's puts its native binary in place.
installer=$clients/node/node_modules/@anthropic-ai/claude-code/install.cjs
if [ -x "$bin/claude" ] && ! "$bin/claude" --version >>"$log" 2>&1; then
    (cd "$(dirname "$installer")" && node install.cjs) >>"$log" 2>&1
fi
starts claude "$bin/claude"
starts codex "$bin/codex"

echo "$wanted" >"$stamp"
echo "clients: $(ls "$bin" "$clients/py/bin" 2>/dev/null | wc -l) programs in .clients, $(wc -l <"$clients/missing") missing" >&2
exit 0
