# Everything runs in .venv, which these targets make. Nothing but Python 3.11 or later, with venv, is needed.
# What is installed is locked in requirements/, each file of it by its hash.

VENV := .venv
BIN := $(VENV)/bin
DEMO := config/demo/ownerd.toml
# A lock names all there is to install, so nothing is left to resolve; pip would, and would look beyond the lock for what a
# package asks for with an extra.
INSTALL = $(BIN)/python -m pip install --quiet --require-hashes --no-deps
# Without isolation, since that would fetch what it builds with, unchecked.
INSTALL_OWNERD = $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
# The connectors of a release.
EXTRAS ?= all
comma := ,

# The first Python that runs and is new enough: a name that is found may still be an empty shim.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help run test bench crash mutation properties lint check lock dist clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The text comes when the first lines of the log have passed.
run: $(VENV)/core ## Run the demo in the foreground; Ctrl-C ends it
	@(sleep 4; cat config/demo/WHAT-TO-TRY.txt) & exec $(BIN)/ownerd run --config $(DEMO)

test: $(VENV)/test ## Run all tests
	@$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/bench ## Measure against Redis, Datasette and bare floors; long; ARGS="--resources 10000" is quick
	@$(BIN)/python -m tests.benchmarks.bench $(ARGS)

crash: $(VENV)/test ## Test every write and sync of the store, and kill it 300 times; takes long
	OWNERD_CRASH=all $(BIN)/python -m pytest -s -o timeout=3600 tests/test_crash.py tests/test_faults.py tests/test_faults_reads.py tests/test_faults_log.py
	$(BIN)/python -m tests.crash.kills $(or $(KILLS),300) $(or $(SEED),0)

mutation: $(VENV)/test ## Change the owner rule and the guard in one place at a time: do their tests notice?
	@$(BIN)/python -m tests.mutation

properties: $(VENV)/test ## Edit tags, directories and configurations at random, 10,000 times and more; SEED=n: other ones
	OWNERD_PROPERTIES=all OWNERD_SEED=$(or $(SEED),0) $(BIN)/python -m pytest -s -o timeout=3600 tests/test_rule_oracle.py

lint: $(VENV)/lint ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/locks.py

check: test lint ## All of both

lock: $(VENV)/release ## Resolve what pyproject.toml asks for anew; ARGS=--upgrade moves versions
	$(BIN)/python .ci/locks.py write $(ARGS)

dist: $(VENV)/release ## Build a release in dist/: wheel, source, lock, SBOM; EXTRAS=aws,okta: for those connectors only
	@.ci/dist $(subst $(comma), ,$(EXTRAS))

clean: ## Remove what the targets made, and the demo's state
	rm -rf $(VENV) dist var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "ownerd needs Python 3.11 or later; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "this Python has no venv; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/core: pyproject.toml requirements/core.txt requirements/build.txt | $(VENV)/made
	@echo "Installing ownerd into $(VENV) ..."
	@$(INSTALL) -r requirements/core.txt -r requirements/build.txt
	@$(INSTALL_OWNERD)
	@touch $@

$(VENV)/test: pyproject.toml requirements/all.txt requirements/test.txt requirements/build.txt | $(VENV)/made
	@echo "Installing ownerd with all connectors and its tests into $(VENV) ..."
	@$(INSTALL) -r requirements/all.txt -r requirements/test.txt -r requirements/build.txt
	@$(INSTALL_OWNERD)
	@touch $@ $(VENV)/core

$(VENV)/lint: requirements/lint.txt | $(VENV)/test
	@$(INSTALL) -r requirements/lint.txt
	@touch $@

# Without them there is less to compare with: that is told, and no reason to measure nothing.
$(VENV)/bench: requirements/bench.txt | $(VENV)/test
	@if $(INSTALL) -r requirements/bench.txt; then touch $@; else echo "Going on without Datasette and redis-py." >&2; fi

$(VENV)/release: requirements/release.txt requirements/build.txt | $(VENV)/made
	@$(INSTALL) -r requirements/release.txt -r requirements/build.txt
	@touch $@
