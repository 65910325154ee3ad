# Everything runs in .venv, which the first command makes. `make train ARGS="loop.eval_frequency=100"` overrides settings.
PYTHON ?= python3
HYDRA_NEXT ?= 1.4.0rc1
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
NEXT := .venv-hydra-next
EXTRAS := .venv-extras
OPTIONAL := accelerate lm-eval pandas tensorboard torchmetrics transformers

.PHONY: install train test test-all test-hydra-next test-extras golden check format

install: $(STAMP)

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

train: $(STAMP)
	$(BIN)/loopwright $(ARGS)

# The fast tier, for each edit: without the tests marked slow, and with fewer examples of each law.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow" $(ARGS)

# Every test.
test-all: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

# Tests that need what .venv lacks have an environment of their own, behind which .venv stands for everything else.
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
define layer
	test -x $(1)/bin/python || $(BIN)/python -m venv --without-pip $(1)
	$(BIN)/python $(SITE) > "$$($(1)/bin/python $(SITE))/zz_rest.pth"
	$(BIN)/python -m pip --python $(1)/bin/python install --quiet --disable-pip-version-check $(2)
endef

# The tests marked hydra, with the release candidate of Hydra's next version.
test-hydra-next: $(STAMP)
	$(call layer,$(NEXT),hydra-core==$(HYDRA_NEXT))
	PYTHONPATH=src $(NEXT)/bin/python -m pytest -q -n $(JOBS) -m hydra tests $(ARGS)

# The tests marked extras, which skip themselves where an optional package is missing. Here none may be.
test-extras: $(STAMP)
	$(call layer,$(EXTRAS),--constraint constraints.txt $(OPTIONAL))
	$(EXTRAS)/bin/python -W ignore -c 'import accelerate, lm_eval, pandas, tensorboard, torchmetrics, transformers'
	PYTHONPATH=src $(EXTRAS)/bin/python -m pytest -q -n $(JOBS) -m extras tests $(ARGS)

# The losses of the shipped experiments beside those on file; `make golden ARGS=--renew` writes the files anew.
golden: $(STAMP)
	$(BIN)/python bench/golden_losses.py $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
