# Everything here works on a fresh machine that has make, python3 (3.11 or newer) and a package index.
# Another interpreter: make PYTHON=python3.12 test
.POSIX:
.PHONY: help test lint format demo bench clean

PYTHON = python3
VENV = .venv
PY = $(VENV)/bin/python
STAMP = $(VENV)/installed

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

test: lint ## set up, then lint, check types and run the tests (neither slow nor gpu)
	$(PY) -m pytest -n 2 -q

lint: $(STAMP) ## ruff and mypy, changing nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP) ## let ruff format the code and mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

demo: $(STAMP) ## plan Mixtral 8x7B on an RTX 4090 and draw the plan's timeline
	@mkdir -p out
	$(PY) -m specsim plan --gpu rtx4090 --target mixtral-8x7b --draft mistral-7b --workload humaneval -o out/plan.yaml
	$(PY) -m specsim simulate out/plan.yaml --plot out/timeline.png --trace out/trace.json
	@echo "The plan is out/plan.yaml, its timeline out/timeline.png; open out/trace.json in https://ui.perfetto.dev"

bench: $(STAMP) ## measure the engine beside SimPy, the commands, and the simulation of a job
	$(PY) -m benchmarks.engine
	$(PY) -m benchmarks.commands
	$(PY) -m benchmarks.job

clean: ## remove everything that make made, .venv too
	rm -rf $(VENV) out dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml once the environment holds what that file asks for.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: no $(PYTHON) found; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) -V 2>&1) is too old, 3.11 is needed; name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) has no venv; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV) with the project and its tools (once, a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)
