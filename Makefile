# duet's commands. `make` lists them. Everything they install stays in .tools/, models/ and target/ of this checkout.
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-verify build demo check lint test verify clean

# rustup installs there; a bare login may not have it on the path.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
DUET := $(TARGET)/release/duet
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
WITHOUT_ENGINES := -p duet-core -p duet-server -p duet-bench

help: ## List the commands
	@echo 'make COMMAND, where COMMAND is one of'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: ## Put build tools, native libraries and the demo model into .tools/ and models/
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh --tests

build: setup ## Build target/release/duet with both engines
	cargo build --release --locked -p duet

demo: build ## Compare both engines on the demo model, then say how to serve it
	@# The whole path shows which file is compared.
	$(DUET) bench $(MODEL)
	@echo
	@echo 'Serve it by:'
	@echo '  $(DUET) serve $(MODEL)'
	@echo 'and see `$(DUET) --help` for more.'

check: ## Format and lints of all that builds without an engine, in seconds
	cargo fmt --all --check
	cargo clippy --locked --all-targets $(WITHOUT_ENGINES)

lint: setup ## Format and lints of everything; with cargo-deny licences, advisories and arrows too
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets
	@if ! cargo deny --version >/dev/null 2>&1; then \
	  echo 'cargo-deny is not installed: licences and advisories not checked (cargo install cargo-deny)'; \
	else \
	  cargo deny check bans licenses sources || exit 1; \
	  if cargo deny fetch db >/dev/null 2>&1; then cargo deny check --disable-fetch advisories; \
	  else echo 'the advisory database cannot be reached: advisories not checked'; fi; \
	fi

# One profile for clippy, tests and demo: each further one would build llama.cpp again.
test: setup-tests ## Everything that proves the project: lints, tests, real clients
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets
	cargo test --release --locked --workspace --no-fail-fast
	@if [ -x tests/clients/run.sh ]; then tests/clients/run.sh $(DUET); fi

setup-verify:
	@scripts/setup.sh --verify

verify: test setup-verify ## Besides, the long suites, and pages in a headless browser
	cargo test --release --locked --workspace --no-fail-fast -- --ignored
	@if [ "$$(uname -sm)" = 'Linux x86_64' ]; then tests/agents/run.sh $(DUET); fi
	tests/conformance/schemathesis.sh $(DUET)
	tests/conformance/llmprobe.sh $(DUET)
	cargo build --release --locked -p duet --example score
	tests/conformance/lm_eval.sh $(DUET) $(TARGET)/release/examples/score
	tests/browser/run.sh $(DUET)

clean: ## Remove what cargo built; .tools/ and models/ stay (delete them by hand to fetch them anew)
	cargo clean
