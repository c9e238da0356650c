# `make help` lists the targets. Variables: PYTHON (default python3), PORT, HEADLESS=1, PYTEST_ARGS.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# An environment without a search path (env -i, some cron jobs): Python could not even find itself.
ifeq ($(PATH),)
export PATH := /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
endif

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Always with the tested versions: an open install may pick builds of several GB that no one here needs.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt
PORT ?= 8888
HEADLESS ?=
PYTEST_ARGS ?=

.PHONY: help demo test lint browser binder-test clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# One stamp file for each set of packages: nothing is installed again while the two files are unchanged.
$(VENV)/made:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here. Install Python 3.11 or later, or: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) -V), and 3.11 or later is needed: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/has-lab: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing the package and JupyterLab into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e '.[lab,fits]'
	@touch $@

$(VENV)/has-dev: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing the package and the tools for its tests into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/has-lab $@

demo: $(VENV)/has-lab ## Open JupyterLab on the quickstart (HEADLESS=1: run its whole hunt and print what was found)
ifeq ($(HEADLESS),1)
	AMATCH_HEADLESS=1 $(BIN)/python notebooks/run.py notebooks/quickstart.ipynb --html build/quickstart.html
else
	@options=(--ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/quickstart.ipynb --port=$(PORT)); \
	options+=(--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.news_url=None --log-level=WARN); \
	if [[ $$(id -u) == 0 ]]; then options+=(--allow-root); fi; \
	if [[ -z "$${DISPLAY:-}$${WAYLAND_DISPLAY:-}" && $$(uname) != Darwin ]]; then \
		options+=(--no-browser); \
		echo "No display here: open the address below that begins with http://127.0.0.1. Ctrl-C twice ends JupyterLab."; \
	fi; \
	PATH="$(abspath $(BIN)):$$PATH" exec $(BIN)/jupyter lab "$${options[@]}"
endif

test: $(VENV)/has-dev browser lint ## Set up for the tests, then run ruff, mypy, import-linter and pytest
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/has-dev ## Run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

browser: ## See that Chromium is there; install it where apt and root allow
	@for name in chromium chromium-browser google-chrome; do if command -v $$name >/dev/null; then exit 0; fi; done; \
	if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the browser tests"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq; \
		apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null; \
	else \
		echo "The browser tests need Chromium, which is missing here. On Debian or Ubuntu: sudo apt-get install chromium"; \
		exit 1; \
	fi

binder-test: ## Install what Binder installs into a fresh environment and run small hunts there
	rm -rf build/binder
	$(PYTHON) -m venv build/binder
	build/binder/bin/python -m pip install -qq --disable-pip-version-check --no-input -r binder/requirements.txt -c constraints.txt
	AMATCH_HEADLESS=1 AMATCH_IMAGES=1500 AMATCH_PAGES=2 AMATCH_STEPS=10 \
		build/binder/bin/python notebooks/run.py notebooks/quickstart.ipynb --html build/binder/quickstart.html
	AMATCH_HEADLESS=1 AMATCH_IMAGES=300 AMATCH_PAGES=1 AMATCH_STEPS=1 \
		build/binder/bin/python notebooks/run.py notebooks/survey.ipynb --html build/binder/survey.html

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
