# `make` lists the targets. Debian with a Rust toolchain is all they need; the rest is installed by package name.
.DEFAULT_GOAL := help
.PHONY: help demo demo-oauth test soak fuzz miri build bench fmt lint clean

# A compiler for aws-lc and mimalloc, and the system's roots for the bundle that agents get.
NEED_BUILD := cc:gcc+libc6-dev /etc/ssl/certs/ca-certificates.crt:ca-certificates

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: ## the main job on this machine, in about a second; KEEP=1 keeps it running
	@.ci/need $(NEED_BUILD) curl:curl
	@cargo build --quiet --locked --bin tollgate --example demo
	@target/debug/examples/demo $(if $(KEEP),--keep)

demo-oauth: ## a login that Tollgate owns, renews, and takes through crashes, in about 20 seconds
	@.ci/need $(NEED_BUILD) curl:curl
	@cargo build --quiet --locked --bin tollgate --example demo-oauth
	@target/debug/examples/demo-oauth

test: ## install the clients that the tests drive, run everything, list what was skipped
	@.ci/need $(NEED_BUILD)
	@.ci/test

soak: ## everything at once for ten minutes (SOAK_MINUTES=), with random faults (SOAK_SEED= repeats them)
	@.ci/need $(NEED_BUILD)
	@cargo test --quiet --locked --test soak

fuzz: ## every fuzz target for FUZZ_SECONDS (20) each; the build alone takes minutes
	@.ci/need $(NEED_BUILD) g++:g++
	@FUZZ_SECONDS=$(or $(FUZZ_SECONDS),20) .ci/fuzz

# Told by their names: they run real threads against what is counted with atomics. Each seed is another order of the steps.
miri: ## the tests with threads under Miri, in MIRI_SEEDS (0..64) orders; wants `rustup +nightly component add miri rust-src`
	@.ci/need $(NEED_BUILD)
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-many-seeds=$(or $(MIRI_SEEDS),0..64)" \
		cargo +nightly miri test --locked --target-dir target/miri --lib -- tests::threads_

build: ## the binary, in target/release
	@.ci/need $(NEED_BUILD)
	cargo build --locked --release

bench: ## tables of ratios to nginx, hudsucker, Squid and mitmproxy (about twenty minutes)
	@.ci/need $(NEED_BUILD)
	benches/run.sh

fmt: ## format the code
	cargo fmt

lint: ## rustfmt, clippy with warnings as errors, cargo-deny
	@.ci/need $(NEED_BUILD) g++:g++
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --manifest-path tests/fuzz/Cargo.toml -- -D warnings
	@.ci/deny

clean: ## remove what was built and the tests' clients
	cargo clean
	rm -rf tests/fuzz/target
	rm -rf .clients
