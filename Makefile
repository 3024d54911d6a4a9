# Inventiv Mesh: every command a person or CI needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export GRPC_ENABLE_FORK_SUPPORT := 0
ONCE ?=
ARGS ?=
SOURCES := control_plane gateway node_agent pki proto/mesh tests bench .ci

.PHONY: help setup demo test check format proto bench soak chaos lock clean \
	agent-checksum agent-version-get agent-version-bump agent-version-auto-bump agent-version-check

help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-24s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with everything in it, exactly as locked
	@bash .ci/setup.sh

demo: setup ## The whole mesh on this machine: join, real model, streamed answer (ONCE=1: tear down and exit)
	@meshctl up --ask $(if $(ONCE),--once,) $(ARGS)

test: setup ## Every test (ARGS="-k name" for some)
	@bash .ci/setup.sh test && bash .ci/test.sh $(ARGS)

check: setup ## Format, lint, types, import rules, proto, shell
	@bash .ci/check.sh

format: setup ## Let ruff rewrite what it can
	@ruff format . && ruff check --fix .

proto: setup ## Regenerate the committed stubs from the schemas
	@bash .ci/proto.sh

bench: setup ## Measure the spine beside its peers, in one run; a table and JSON in bench/results
	@bash .ci/setup.sh bench && python -m bench $(ARGS)

soak: setup ## Half an hour of load: does the gateway's memory stay flat? (ARGS="--minutes 30 --rate 200")
	@bash .ci/setup.sh bench && python -m bench.soak $(ARGS)

chaos: setup ## The long form of the fault tests (ROUNDS=20)
	@bash .ci/setup.sh test && CHAOS_ROUNDS=$${ROUNDS:-20} pytest tests/fault -m real -p no:xdist -v --timeout 3600 $(ARGS)

lock: setup ## Resolve requirements/*.txt afresh from pyproject.toml
	@bash .ci/lock.sh

agent-checksum: setup ## Print the SHA-256 of the agent
	@python -m node_agent checksum

agent-version-get: setup ## Print the agent's version and build date
	@python .ci/agent_version.py get

agent-version-bump: setup ## Set the agent's version (VERSION=1.2.3, BUILD_DATE=2026-01-31 optional)
	@python .ci/agent_version.py bump "$${VERSION:?say which: make agent-version-bump VERSION=1.2.3}" $${BUILD_DATE:+--build-date "$$BUILD_DATE"}

agent-version-auto-bump: setup ## Raise the agent's patch version by one
	@python .ci/agent_version.py bump --patch $${BUILD_DATE:+--build-date "$$BUILD_DATE"}

agent-version-check: setup ## Fail when the agent changed (BASE=HEAD~1) without a new version
	@python .ci/agent_version.py check $${BASE:+--base "$$BASE"}

clean: ## Remove what make made (not your state folder)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage bench/bin
