# Everything here works on a fresh machine that has make, python3 (3.11 or newer) and a package index.
# Another interpreter: make PYTHON=python3.12 test. Another torch, say one for your GPU: make TORCH=torch==2.11.0 test
.POSIX:
.PHONY: help test lint format demo bounds notebooks bench clean

PYTHON = python3
TORCH = torch==2.13.0
VENV = .venv
PY = $(VENV)/bin/python
STAMP = $(VENV)/installed
LOWEST = .venv-lowest
# The demo's pair of models, and a disk as slow beside it as a real one is beside a real model.
DEMO_PAIR = --target executor/demo/target --draft executor/demo/draft
DEMO_DISK = 12MB/s

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

test: lint ## set up, then lint, check types and run the tests (neither slow nor gpu)
	$(PY) -m pytest -n 2 -q

lint: $(STAMP) ## ruff and mypy, changing nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP) ## let ruff format the code and mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

demo: $(STAMP) ## plan Mixtral 8x7B on an RTX 4090; then measure this machine, plan a small model for it, and run the plan
	@mkdir -p out
	$(PY) -m specsim plan --gpu rtx4090 --target mixtral-8x7b --draft mistral-7b --workload humaneval -o out/plan.yaml
	$(PY) -m specsim simulate out/plan.yaml --plot out/timeline.png --trace out/trace.json
	@echo; echo "Now for real, on this machine: a target of 6.9 MB (and its draft) in 7.5 MiB of RAM, from a disk that is held to $(DEMO_DISK)"
	$(PY) -m specsim profile --quick -o out/here.yaml
	$(PY) -m specsim plan --machine out/here.yaml --ram 7.5MiB --disk-bandwidth $(DEMO_DISK) \
	  $(DEMO_PAIR) --acceptance executor/demo/pair.yaml --requests 16 --prompt-tokens 91 --output-tokens 32 -o out/demo.yaml
	@rm -rf out/demo
	$(PY) -m specsim run out/demo.yaml $(DEMO_PAIR) --prompts executor/demo/prompts.jsonl --limit 16 \
	  --throttle disk=$(DEMO_DISK) -o out/demo --plot out/demo.png
	@echo; echo "Pictures: out/timeline.png (predicted), out/demo.png (predicted above measured)"
	@echo "Traces for https://ui.perfetto.dev: out/trace.json, out/demo/trace.json"

bounds: $(STAMP) ## run the planner's tests with the lowest versions of what it needs, in an environment of their own
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(PY) -m tests.bounds cluster parquet > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/constraints.txt \
	  --editable '.[cluster,parquet]' pytest hypothesis hatchling
	$(LOWEST)/bin/python -m pytest -q tests/specsim tests/cli/test_plan.py tests/cli/test_main.py tests/cli/test_listing.py

notebooks: $(STAMP) ## execute all notebooks and keep what they print
	$(PY) -m notebooks.execute

bench: $(STAMP) ## measure the simulator beside SimPy, the commands, the executor's engine and an emulated link
	$(PY) -m benchmarks.engine
	$(PY) -m benchmarks.commands
	$(PY) -m benchmarks.job
	$(PY) -m benchmarks.overhead
	$(PY) -m benchmarks.link

clean: ## remove everything that make made, .venv too
	rm -rf $(VENV) $(LOWEST) out dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml once the environment holds what that file asks for.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: no $(PYTHON) found; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) -V 2>&1) is too old, 3.11 is needed; name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) has no venv; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV) with the project and its tools (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import torch' 2>/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[run,serve,notebooks,cluster,parquet,dev]'
	@touch $(STAMP)
