# The two to know: `make demo` and `make test`. Each installs what is missing and does everything else.
# The work is done by the scripts in cluster-scripts/, which also run without make.

.DEFAULT_GOAL := help
.PHONY: help demo stop-demo test torture compare build fmt lint arrows docs audit schemathesis

# The build lies outside the clone, because compiling RocksDB takes many minutes.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/quorate/target
# These would replace the flags of .cargo/config.toml, and other flags compile RocksDB again.
unexport RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET

# The same packages and targets for every build, so that features unify in one way.
SELECTION := --release --locked --workspace --all-targets

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## three nodes, a conversation, a killed leader, and proof that nothing is lost
	@bash cluster-scripts/demo

stop-demo: ## stop what `make demo` left running and delete its data
	@bash cluster-scripts/demo --stop

test: ## every check: formatting, lints, arrows, tests, documentation
	@bash cluster-scripts/test-all

torture: ## the long fault tests: every fault on real processes, simulation, planted bugs (about an hour, as root)
	@bash cluster-scripts/torture

compare: ## Quorate, etcd, JetStream and a bare handler under the same work (some 20 minutes; FLAGS='--rounds 1')
	@bash cluster-scripts/compare $(FLAGS)

build: ## the binary and everything that is tested
	cargo build $(SELECTION)

fmt: ## format the code
	cargo fmt --all

lint: ## formatting and clippy, as `make test` has them
	cargo fmt --all --check
	cargo clippy $(SELECTION) -- -D warnings

arrows: ## which crate may know which
	@bash cluster-scripts/check-arrows

docs: ## the documentation of the code
	cargo doc --release --locked --workspace --no-deps

audit: ## licences, advisories and sources of the dependencies (needs cargo-deny)
	cargo deny --locked check

schemathesis: ## three nodes held against their own /openapi.json (needs Python and its package index)
	@bash cluster-scripts/schemathesis
