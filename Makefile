# Everything runs in .venv, which the first command makes. `make train ARGS="loop.eval_frequency=100"` overrides settings.
PYTHON ?= python3
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install train test check format

install: $(STAMP)

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

train: $(STAMP)
	$(BIN)/loopwright $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
