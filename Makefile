# make help lists the targets. Everything runs from .venv; VENV=<folder> chooses another.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python

.PHONY: help setup demo test test-slow lint bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $$($(PYTHON) --version 2>&1) found: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "the venv module is missing; install it with: apt-get install -y python3-venv"; exit 1; }
	@echo "installing the pinned dependencies into $(VENV) (a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q -r requirements.lock 2>&1 | { grep -v "is ignored: it is neither a file nor a directory" || true; }
	@$(PY) -c 'import torch, polars, numba, hydra, pytorch_lightning, wandb' || { \
	  echo "the installation into $(VENV) is incomplete; remove it with: make clean VENV=$(VENV), then try again"; exit 1; }
	@$(PY) -m hft schema
	@touch $@

setup: $(VENV)/.installed  ## create .venv and install the pinned dependencies

demo: setup  ## a synthetic market, a trained SE-TCN and its scorecard in under three minutes
	@$(PY) train.py experiment=demo
	@$(PY) backtest.py ckpt=latest
	@echo
	@echo "Everything is in runs/ (config.json, metrics.json, weights, backtest/test/scorecard.json and equity.png)."
	@echo "Try next:"
	@echo "  $(PY) train.py experiment=demo data.alpha=0               # the null control: no drift, so nothing to find"
	@echo "  $(PY) train.py experiment=demo bars=volume bars.size=0.8  # another clock"
	@echo "  $(PY) train.py -m experiment=demo labels.width=0.5,1,2    # a grid, ticks and bars built once"

test: setup  ## the default test suite
	@$(PY) -m pytest -n 2

test-slow: setup  ## the slow controls
	@$(PY) -m pytest -n 2 --dist loadfile -m slow

lint: setup  ## ruff, mypy, and every shipped experiment parses
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(PY) -m hft check

bench: setup  ## speed side by side, a table and one JSON line
	@$(PY) -m benchmarks

clean:  ## remove the environment, caches and run folders
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis runs sweeps
