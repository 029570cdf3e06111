# Everything a person does with a checkout. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Two steps at once would only mix their output: the slow ones use both cores themselves.
.NOTPARALLEL:

PYTHON ?= python3
VENV ?= .venv
VENV_PYTHON := $(VENV)/bin/python
# Further arguments for pytest, e.g. `make test-unit PYTEST_ARGS="-k ledger -x"`.
PYTEST_ARGS ?=
# Where the demo runs: `make demo TARGET=slurm`.
TARGET ?= local
# Further arguments for `make constraints`, e.g. UV_ARGS=--upgrade.
UV_ARGS ?=

PIP_INSTALL := $(VENV_PYTHON) -m pip install --disable-pip-version-check --no-input --quiet
PYTEST := $(VENV_PYTHON) -m pytest
# Checks the types of the JavaScript; nothing that is shipped needs it.
TYPESCRIPT := 5.9.3
TSC := $(VENV)/node/node_modules/.bin/tsc
# Stands before the hub of the tests; version 5 wants a newer node than Debian 12 has.
HUB_PROXY := 4.6.3
NODE_STAMP := $(VENV)/node/.stamp-$(TYPESCRIPT)-$(HUB_PROXY)

export PIP_NO_WARN_SCRIPT_LOCATION = 1
# pip as root in a venv of its own is what is wanted here.
export PIP_ROOT_USER_ACTION = ignore

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- use -----------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.stamp-notebooks $(if $(filter slurm,$(TARGET)),slurm) ## Run the tour on real work (TARGET=slurm: on a Slurm of its own)
	$(VENV_PYTHON) notebooks/run_tour.py --output out/demo --target $(TARGET)

.PHONY: lab
lab: $(VENV)/.stamp-notebooks ## Open the tour in JupyterLab
	$(VENV_PYTHON) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_tour.ipynb

# --- verify --------------------------------------------------------------------

.PHONY: test
test: test-js test-unit test-slow ## Install what the tests need and run all of them

.PHONY: test-unit
test-unit: $(VENV)/.stamp-dev ## Run the tests that start no cluster (half a minute)
	$(PYTEST) tests/unit -n 2 $(PYTEST_ARGS)

# One after the other: each starts a cluster that fills both cores, and many measure time.
.PHONY: test-slow
test-slow: $(VENV)/.stamp-dev $(NODE_STAMP) chromium slurm ## Run the tests on real clusters, in the browser and of the notebooks
	$(PYTEST) tests/integration tests/slurm tests/notebooks tests/browser --durations=10 $(PYTEST_ARGS)

.PHONY: docs
docs: $(VENV)/.stamp-dev ## Build the documentation into out/site, to be read offline
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build
	@echo "open out/site/index.html; with search: python3 -m http.server --directory out/site"

# The same seed strikes in the same order; how far the work is at each strike may differ.
.PHONY: chaos
chaos: $(VENV)/.stamp-dev ## Kill, stop and cut off everything for minutes; nothing may be lost (SEED=...)
	$(VENV_PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED))
	$(VENV_PYTHON) -m tests.chaos.resume_kills $(if $(SEED),--seed $(SEED))

.PHONY: chaos-resume
chaos-resume: $(VENV)/.stamp-dev ## Kill hosts and kernels fifty times; every run goes on from its folder (SEED=...)
	$(VENV_PYTHON) -m tests.chaos.resume_kills $(if $(SEED),--seed $(SEED))

.PHONY: model
model: $(VENV)/.stamp-dev ## Run random sequences on batches against a model of them (SEQUENCES=1000)
	BATCH_SEQUENCES=$(or $(SEQUENCES),1000) $(PYTEST) tests/integration/test_batches_stateful.py --timeout 0 $(PYTEST_ARGS)

.PHONY: fuzz-cache
fuzz-cache: $(VENV)/.stamp-dev ## Look for programs that get a wrong result from the cache (FUZZ_S=600 FUZZ_SEED=...)
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(VENV_PYTHON) tests/cache_adversary.py --within $(or $(FUZZ_S),600) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

.PHONY: binder-check
binder-check: $(VENV)/.stamp-dev slurm ## Build binder/ as an ordinary user in a clean folder, and run every notebook
	$(VENV_PYTHON) -m tests.binder_check

.PHONY: screenshots
screenshots: $(VENV)/.stamp-dev chromium ## Take the pictures in docs/images anew
	$(PYTEST) tests/browser/test_lab_live.py --update-images

.PHONY: test-js
test-js: node ## Run the tests of the views' JavaScript
	@files=$$(find tests/js -name '*.test.js' -o -name '*.test.mjs' | sort); \
	[ -n "$$files" ] || { echo "test-js: no *.test.js or *.test.mjs in tests/js" >&2; exit 1; }; \
	if command -v node >/dev/null; then node --test $$files; \
	elif [ "$${CI:-}" = true ]; then echo "test-js: node is missing" >&2; exit 1; \
	else echo "test-js: skipped, node is missing" >&2; fi

.PHONY: check
check: lint types types-js layers test-js ## Check style, types and layers, and run the JavaScript tests

.PHONY: lint
lint: $(VENV)/.stamp-dev ## Check style and formatting with ruff
	@status=0; \
	$(VENV_PYTHON) -m ruff check . || status=1; \
	$(VENV_PYTHON) -m ruff format --check . || status=1; \
	exit $$status

.PHONY: types
types: $(VENV)/.stamp-dev ## Check types with mypy --strict
	$(VENV_PYTHON) -m mypy

.PHONY: types-js
types-js: $(NODE_STAMP) ## Check the types of the views' JavaScript with tsc
	@if [ -e $(TSC) ]; then $(TSC) --project tsconfig.json; \
	elif [ "$${CI:-}" = true ]; then echo "types-js: npm is missing" >&2; exit 1; \
	else echo "types-js: skipped, npm is missing" >&2; fi

.PHONY: layers
layers: $(VENV)/.stamp-dev ## Check with import-linter which part may import which
	$(VENV)/bin/lint-imports --no-logo

.PHONY: slurm-up
slurm-up: $(VENV)/.stamp-notebooks slurm ## Start a Slurm of your own on this machine, and say what to export
	@$(VENV_PYTHON) -m scalable_nb.devslurm up

.PHONY: slurm-down
slurm-down: $(VENV)/.stamp-notebooks ## Stop it and remove its files
	@$(VENV_PYTHON) -m scalable_nb.devslurm down --remove

.PHONY: bench
bench: $(VENV)/.stamp-dev ## Measure against plain Dask, side by side
	$(VENV_PYTHON) -m benchmarks

# Both ends of what pyproject.toml allows, and the newest release of Dask, whatever it allows; each
# in its own environment: the unit tests, and sessions from start to stop. Five minutes for each on
# two cores.
COMPAT_PYTHON ?= $(PYTHON)
COMPAT ?= lowest-direct highest newest-dask
COMPAT_DASK := dask[dataframe,diagnostics] distributed dask-jobqueue
.PHONY: compat
compat: $(VENV)/.stamp-dev ## Test with the oldest and newest dependencies and the newest Dask (COMPAT=..., COMPAT_PYTHON=...)
	@status=0; for resolution in $(COMPAT); do \
	  python=out/compat/$$resolution/bin/python; \
	  echo "=== dependencies: $$resolution"; \
	  $(VENV_PYTHON) -m uv venv --quiet --clear --python $(COMPAT_PYTHON) out/compat/$$resolution; \
	  $(VENV_PYTHON) -m uv pip install --quiet --compile-bytecode --python $$python \
	    --resolution $${resolution/newest-dask/highest} -e '.[test]'; \
	  if [ $$resolution = newest-dask ]; then \
	    allowed=$$($(VENV_PYTHON) -m uv pip freeze --python $$python | grep -E '^(dask|distributed)'); \
	    $(VENV_PYTHON) -m uv pip install --quiet --compile-bytecode --python $$python \
	      --upgrade --prerelease disallow $(addprefix ',$(addsuffix ',$(COMPAT_DASK))); \
	    newest=$$($(VENV_PYTHON) -m uv pip freeze --python $$python | grep -E '^(dask|distributed)'); \
	    echo $$newest; \
	    if [[ "$$newest" = "$$allowed" && " $(COMPAT) " = *" highest "* ]]; then \
	      echo "the same as with highest: not tested again"; continue; \
	    fi; \
	  fi; \
	  $$python -m pytest tests/unit -n 2 $(PYTEST_ARGS) || status=1; \
	  $$python -m pytest tests/integration/test_magics.py || status=1; \
	done; exit $$status

# --- develop -------------------------------------------------------------------

.PHONY: install
install: $(VENV)/.stamp-dev ## Make .venv with everything for development
	@echo "$(VENV) is up to date"

.PHONY: format
format: $(VENV)/.stamp-dev ## Format the code and mend what ruff can mend
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

.PHONY: hooks
hooks: $(VENV)/.stamp-dev ## Have git run the quick checks before each commit
	$(VENV_PYTHON) -m pre_commit install

.PHONY: constraints
constraints: $(VENV)/.stamp-dev ## Compile constraints.txt again (UV_ARGS=--upgrade for newer versions)
	$(VENV_PYTHON) -m uv pip compile pyproject.toml --extra dev --output-file constraints.txt \
	  --universal --python-version 3.11 --fork-strategy fewest --no-emit-package scalable-nb \
	  --custom-compile-command "make constraints" --annotation-style line --quiet $(UV_ARGS)

.PHONY: clean
clean: ## Remove .venv, caches, builds and the demo's output
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the commands above need ----------------------------------------------

# $(call apt_install,PACKAGES): install Debian packages, which takes root; otherwise it fails.
define apt_install
{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
  && echo "installing Debian packages: $(1)" \
  && export DEBIAN_FRONTEND=noninteractive \
  && apt-get update -qq && apt-get install -qq -y --no-install-recommends $(1) >/dev/null; }
endef

$(VENV_PYTHON):
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') \
	  || { echo "make: no Python runs as '$(PYTHON)'; name one: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is Python $$version, but 3.11 or newer is needed;" \
	         "name one: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || $(call apt_install,python$$version-venv) \
	  || { echo "make: Python $$version has no venv module; run" \
	         "'sudo apt-get install python$$version-venv' and try again" >&2; exit 1; }; \
	echo "making $(VENV) with Python $$version"; \
	$(PYTHON) -m venv --clear $(VENV)

# A stamp is as new as the last install, so nothing is installed twice.
$(VENV)/.stamp-notebooks: pyproject.toml constraints.txt | $(VENV_PYTHON)
	@echo "installing scalable-nb for the notebooks (a minute or two)"
	@$(PIP_INSTALL) -c constraints.txt -e '.[notebooks]'
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(VENV_PYTHON)
	@echo "installing scalable-nb for development (a minute or two)"
	@$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.stamp-notebooks

# Both at once: npm removes what it is not told. Without a lock file, which would record
# addresses; the versions say all.
$(NODE_STAMP): | $(VENV_PYTHON)
	@command -v npm >/dev/null || $(call apt_install,npm) \
	  || echo "npm is missing: apt-get install npm" >&2
	@mkdir -p $(VENV)/node
	@if command -v npm >/dev/null; then npm install --prefix $(VENV)/node --no-save \
	  --no-package-lock --no-audit --no-fund --silent \
	  typescript@$(TYPESCRIPT) configurable-http-proxy@$(HUB_PROXY) && touch $@; fi

# What some tests need and PyPI does not have. Without root nothing is installed, and those
# tests are skipped with a reason, or fail where CI=true.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || $(call apt_install,chromium fonts-dejavu-core) \
	  || echo "chromium is missing: apt-get install chromium fonts-dejavu-core" >&2

.PHONY: node
node:
	@command -v node >/dev/null || $(call apt_install,nodejs) \
	  || echo "node is missing: apt-get install nodejs" >&2

SLURM_PACKAGES := munge slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin mariadb-server
.PHONY: slurm
slurm:
	@dpkg -s $(SLURM_PACKAGES) >/dev/null 2>&1 || $(call apt_install,$(SLURM_PACKAGES)) \
	  || echo "Slurm is missing: apt-get install $(SLURM_PACKAGES)" >&2
