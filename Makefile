# make help lists the targets. Everything runs from .venv; VENV=<folder> chooses another, PYTHON=
# the interpreter it is made with, UV=1 installs with uv in place of pip.
VENV ?= .venv
PYTHON ?= python3
UV ?=
PY := $(VENV)/bin/python
# uv does not read pip's settings (an index of your own, a CPU torch): it is a choice, pip the default.
INSTALL := $(if $(UV),uv pip install --python $(PY),$(PY) -m pip install)

.PHONY: help setup demo test test-slow lint bench wheel wheel-smoke picture clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $$($(PYTHON) --version 2>&1) found: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "the venv module is missing; install it with: apt-get install -y python3-venv"; exit 1; }
	@test -z "$(UV)" || uv --version > /dev/null || { \
	  echo "UV=$(UV) asks for uv, which is not installed; install it with: pip install uv"; exit 1; }
	@echo "installing the pinned dependencies into $(VENV) (a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) -q -r requirements.lock 2>&1 | { grep -v "is ignored: it is neither a file nor a directory" || true; }
	@$(INSTALL) -q --no-deps --no-build-isolation -e . 2>&1 | { grep -v "is ignored: it is neither a file nor a directory" || true; }
	@$(PY) -c 'import torch, polars, numba, hydra, pytorch_lightning, wandb' && $(VENV)/bin/hft --version > /dev/null || { \
	  echo "the installation into $(VENV) is incomplete; remove it with: make clean VENV=$(VENV), then try again"; exit 1; }
	@$(VENV)/bin/hft schema
	@touch $@

setup: $(VENV)/.installed  ## create .venv, install the pinned dependencies and the command hft

demo: setup  ## a synthetic market, a trained SE-TCN and its scorecard in under three minutes
	@$(PY) train.py experiment=demo
	@$(PY) backtest.py ckpt=latest
	@echo
	@echo "Everything is in runs/ (config.json, metrics.json, weights, backtest/test/scorecard.json and equity.png)."
	@echo "Try next (source $(VENV)/bin/activate first):"
	@echo "  python train.py experiment=demo data.alpha=0               # the null control: no drift, so nothing to find"
	@echo "  python train.py experiment=demo bars=volume bars.size=0.8  # another clock"
	@echo "  python train.py -m experiment=demo labels.width=0.5,1,2    # a grid, ticks and bars built once"

test: setup  ## the default test suite
	@$(PY) -m pytest -n 2

test-slow: setup  ## the slow controls
	@$(PY) -m pytest -n 2 --dist loadfile -m slow

lint: setup  ## ruff, mypy, and every shipped experiment parses
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@echo "longest files:"; git ls-files 'hft/*.py' | xargs -r wc -l | sort -rn | sed -n '2,5p'
	@$(VENV)/bin/hft check

# `make bench start claims` measures those two: the words after bench are no targets then.
NAMES := $(if $(filter bench,$(firstword $(MAKECMDGOALS))),$(wordlist 2,99,$(MAKECMDGOALS)))
bench: setup  ## speed side by side, a table and one JSON line; make bench start: one of them
	@$(PY) -m benchmarks $(NAMES)
ifneq ($(NAMES),)
.PHONY: $(NAMES)
$(NAMES): bench
	@:
endif

wheel: setup  ## dist/hft-<version>-py3-none-any.whl
	@$(PY) -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@ls dist/*.whl

wheel-smoke: setup  ## build the wheel, install it elsewhere, run a smoke from another folder
	@PYTHON=$(abspath $(PY)) .ci/wheel

picture: demo  ## docs/demo.png: the figure that the demo's backtest draws
	@cp "$$(ls -d runs/*/backtest/test | tail -1)/equity.png" docs/demo.png

clean:  ## remove the environment, caches and run folders
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist runs sweeps
