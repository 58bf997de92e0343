# `make` lists the targets. Needs Python 3.11+ with venv; the tests against a real broker also need Java 17 and Maven.

PYTHON ?= python3
ARGS ?=

# One environment for everything: the development tools add a few seconds to a first `make demo`, a second one would add
# a second thing to get out of date. Relative, so that a path with spaces is no problem.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest --dist worksteal --maxprocesses 4 --numprocesses
# A test with a broker mostly waits: one more worker than there are cores (but not more than 4) keeps them busy.
CORES := $(shell nproc 2>/dev/null || echo 2)
WORKERS := $(shell echo $$(( $(CORES) + 1 )))
# Of the long forms of the chaos tests: what time and number add most to. (Code 5 of pytest: no test is left to play, as
# with ARGS="--last-failed --last-failed-no-failures=none" after one of the two runs that passed.)
LONG_FORMS := join_and_leave_every_second or arrive_late_at_random
# What the schedules beside them say; the end of it is shown behind everything else.
SCHEDULES := build/schedules-from

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, as in many containers, each worker of pytest and each relay that a test starts compiles all modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo check unit test test-long chaos simulate soak endurance lint types docs dist audit bench engines lock
.PHONY: generated screenshots clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Watch the relay work with a built-in Kafka and a simulated Engage, no configuration
	@$(BIN)/python -m consumer.cli demo $(ARGS)

# Side by side: the first two use one core each, and only for seconds where mypy has its cache.
check: $(READY) ## Before each commit, within a minute: lint, types, unit and contract tests
	@$(MAKE) --no-print-directory -j 3 lint types unit

unit: $(READY) ## Run the quick tests: unit and contract (ARGS="-k ledger" for some)
	@$(PYTEST) $(CORES) -m "not slow" --quick tests/unit tests/contract $(ARGS)

test: $(READY) ## Run every test but the longest, in a quarter of an hour or little more (ARGS="-k ledger" for some)
	@$(PYTEST) $(WORKERS) -m "not long" --durations 40 --durations-min 5 $(ARGS)

test-long: $(READY) ## What is longer, within an hour: 60,000 schedules, the longest tests, some long forms of the chaos tests
	@mkdir -p build; rm -f $(SCHEDULES)-*.txt; \
	  seq 0 30000 30000 | xargs -I {} -P 2 sh -c \
	    'nice -n 19 $(BIN)/python -m tests.simulation --seeds 30000 --from {} > $(SCHEDULES)-{}.txt 2>&1' & seeds=$$!; \
	  failed=0; \
	  play() { $(PYTEST) 2 --durations 40 --durations-min 5 "$$@" $(ARGS) || [ $$? -eq 5 ] || failed=1; }; \
	  play -m long -k "not ($(LONG_FORMS))"; \
	  play tests/chaos --long -k "$(LONG_FORMS)"; \
	  wait $$seeds || failed=1; \
	  tail -n 2 $(SCHEDULES)-*.txt; \
	  exit $$failed

chaos: $(READY) ## Play every long form of the chaos and load tests: an hour or more (ARGS="-k kill" for some)
	@$(BIN)/python -m pytest tests/chaos tests/broker/relay/test_load.py --long $(ARGS)

simulate: $(READY) ## Play 5,000 seeded schedules of the simulation, as `make test` does (ARGS="--seed 7 --trace")
	@$(BIN)/python -m tests.simulation --seeds 5000 $(ARGS)

soak: $(READY) ## Play 100,000 of them, in three minutes (ARGS="--seeds 1000000", ARGS="--from 100000")
	@$(BIN)/python -m tests.simulation --seeds 100000 $(ARGS)

endurance: $(READY) ## Run one relay for half an hour: memory, descriptors, threads, lateness (ARGS="--minutes 5")
	@$(BIN)/python -m benchmarks.endurance $(ARGS)

lint: $(READY) ## Check style, format and that what is generated is current
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/deptry consumer schemas
	@$(BIN)/deptry tests tools benchmarks --ignore DEP002,DEP004
	@$(BIN)/python -m tools.generators --check

types: $(READY) ## Check types (mypy --strict)
	@$(BIN)/python -m mypy $(ARGS)

docs: $(READY) ## Build the documentation as a site (build/site); every link and anchor is checked
	@$(BIN)/python -m tools.site_source
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "build/site/index.html"

dist: $(READY) ## Build wheel and sdist, and list what they consist of (dist/)
	@rm -rf dist
	@$(BIN)/uv build --quiet --require-hashes --build-constraints requirements-dev.lock --out-dir dist
	@$(BIN)/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml \
	  --mc-type application --output-reproducible --output-file dist/engage-relay.cdx.json
	@ls dist

audit: $(READY) ## Look for known vulnerabilities in what is pinned (says so where the registry does not answer)
	@$(BIN)/python -m pip_audit --requirement requirements.lock --disable-pip --progress-spinner off

bench: $(READY) ## Measure throughput and restore time against a real broker, and lateness against the least possible
	@$(BIN)/python -m benchmarks.throughput $(ARGS)
	@$(BIN)/python -m benchmarks.restore $(ARGS)
	@$(BIN)/python -m benchmarks.lateness
	@$(BIN)/python -m benchmarks.deciding

engines: $(READY) ## Compare the HTTP engine's CPU with that of the commit before (ARGS="--against v0.1.0")
	@$(BIN)/python -m benchmarks.engines $(ARGS)

lock: $(READY) ## Pin the dependencies of pyproject.toml (ARGS=--upgrade for the newest)
	@set -e; lock() { \
	  $(BIN)/uv pip compile --quiet --universal --python-version=3.11 --generate-hashes --extra=msk --extra=otel --extra=registry $(ARGS) \
	    "$$@" pyproject.toml; \
	}; \
	lock --output-file=requirements.lock; \
	lock --group=dev --constraints=requirements.lock --output-file=requirements-dev.lock

generated: $(READY) ## Write what is generated: schemas, references (configuration, chart values, log lines), the cookbook, the dashboard
	@$(BIN)/python -m tools.generators

screenshots: $(READY) ## Take the pictures in docs/images again (Debian: apt-get install chromium)
	@$(BIN)/python -m tools.screenshots

clean: ## Remove the environment, caches and build results (not the downloaded test broker)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "engage-relay needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	      "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "'$(PYTHON)' cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Making $(VENV) (once, and again when the dependencies change) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
