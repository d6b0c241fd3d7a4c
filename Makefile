# The commands of the house. Tools come from .ci/install, which leaves what is there alone.

SHELL := /bin/bash
export PATH := $(CURDIR)/.ci/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help release demo check lint unit test fuzz outage soak bench bench-scale bench-redaction bench-consumer bench-tools profile tools clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

release: ## the programs in target/release, as they are shipped
	@.ci/install build
	cargo build --locked --release --bins

demo: ## one exchange after another through proxy, JetStream and consumer, to look at
	@.ci/install demo
	@.ci/demo

check: ## format, lints, unit tests: before every commit
	@.ci/install check
	@$(MAKE) --no-print-directory lint unit

lint:
	cargo fmt --all --check
	taplo fmt --check
	typos
	shellcheck .cargo/rustc-by-profile .ci/checks/profile .ci/install .ci/demo .ci/fuzz .ci/profile .ci/run
	.ci/checks/profile
	.ci/venv/bin/python .ci/checks/stack.py --quick
	.ci/venv/bin/python .ci/checks/chart.py --quick
	cargo deny --locked --log-level error check --allow unused-wrapper bans licenses sources
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit:
	cargo nextest run --locked --workspace --lib --bins

test: tools lint ## everything, on real servers: what CI runs
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	cargo test --locked --workspace --doc
	cargo build --locked --workspace --bins
	.ci/venv/bin/python .ci/checks/readme.py
	DEMO_ONCE=1 DEMO_PROFILE=dev .ci/demo
	.ci/venv/bin/python .ci/checks/stack.py
	.ci/venv/bin/python .ci/checks/chart.py
	cargo nextest run --locked --workspace
	@$(MAKE) --no-print-directory soak SOAK_SECONDS=60
	@$(MAKE) --no-print-directory fuzz

fuzz: ## every fuzz target, briefly, where a nightly compiler and cargo-fuzz are there
	@.ci/fuzz

outage: tools ## 100,000 exchanges while NATS is away, killed five times and frozen; the tests send 20,000
	cargo build --locked --workspace --bins
	SIDELOG_TEST_EXCHANGES=100000 cargo test --locked -p sidelog-proxy --test outage -- --exact nats_away::whatever_happens_to_nats_each_record_is_in_the_stream_once --nocapture

soak: tools ## an hour of load with outages in every round, or as long as SOAK_SECONDS says
	cargo build --locked --workspace --bins
	SIDELOG_SOAK_SECONDS=$(or $(SOAK_SECONDS),3600) cargo test --locked -p sidelog-proxy --test outage -- --ignored --exact soak::soak --nocapture

bench: bench-tools ## every target: what the proxy costs beside bare pingora, Envoy, nginx and HAProxy, redaction, consumer: up to an hour on two idle cores
	cargo bench --locked --profile quick -p sidelog-proxy --bench cost
	@$(MAKE) --no-print-directory bench-redaction
	@$(MAKE) --no-print-directory bench-consumer

bench-scale: bench-tools ## how that grows with connections, bodies, header fields, routes and rules
	cargo bench --locked --profile quick -p sidelog-proxy --bench cost -- scale

bench-tools:
	@.ci/install bench
	@$(MAKE) --no-print-directory release
	cargo build --locked --profile bare -p bare

bench-redaction: ## how fast bodies are redacted, against the targets
	@.ci/install build
	cargo bench --locked -p sidelog-proxy --bench redaction

bench-consumer: release ## what a record costs the consumer, and the memory it takes, against the targets
	@.ci/install demo
	SIDELOG_PROGRAMS=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release \
		cargo bench --locked --profile quick -p sidelog-consumer --bench drain

profile: ## train the release build anew, after changes to what is hot: half an hour on two idle cores
	@.ci/install bench
	@.ci/profile

tools: ## install what tests and checks need
	@.ci/install test

clean: ## remove what was built, installed and written by the demo
	cargo clean --locked
	rm -rf demo .ci/bin .ci/venv .ci/.lock
