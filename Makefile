# All commands run in .venv, which the first command creates. To override settings:
# make train ARGS="loop.eval_frequency=100"
PYTHON ?= python3
HYDRA_NEXT ?= 1.4.0rc1
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
NEXT := .venv-hydra-next
EXTRAS := .venv-extras
OPTIONAL := accelerate alembic axe-playwright-python lm-eval mlflow-skinny optuna pandas playwright sqlalchemy submitit \
	tensorboard torchmetrics transformers uplot-python wandb

.PHONY: install train sweep test test-all test-hydra-next test-extras golden check format

install: $(STAMP)

# Installs again only if pyproject.toml or constraints.txt has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

train: $(STAMP)
	$(BIN)/loopwright $(ARGS)

# Six jobs of the default experiment, and a table of their results.
sweep: $(STAMP)
	$(BIN)/loopwright -m loop.grad_accum_steps=1,2,4 seed=0,1 $(ARGS)

# The fast tier, for each edit: without the tests marked slow, and with fewer examples of each law.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow" $(ARGS)

# Every test.
test-all: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

# Tests that need packages that are not in .venv run in their own environment. It finds all other packages in .venv.
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
define layer
	test -x $(1)/bin/python || $(BIN)/python -m venv --without-pip $(1)
	$(BIN)/python $(SITE) > "$$($(1)/bin/python $(SITE))/zz_rest.pth"
	$(BIN)/python -m pip --python $(1)/bin/python install --quiet --disable-pip-version-check $(2)
endef

# Runs the tests marked hydra with the release candidate of the next Hydra version.
test-hydra-next: $(STAMP)
	$(call layer,$(NEXT),hydra-core==$(HYDRA_NEXT))
	PYTHONPATH=$(CURDIR)/src $(NEXT)/bin/python -m pytest -q -n $(JOBS) -m hydra tests $(ARGS)

# Runs the tests marked extras. They skip themselves if an optional package is missing, so first make sure that none is.
test-extras: $(STAMP)
	$(call layer,$(EXTRAS),--constraint constraints.txt $(OPTIONAL))
	$(EXTRAS)/bin/python -W ignore -c 'import accelerate, alembic, lm_eval, mlflow, optuna, pandas, playwright'
	$(EXTRAS)/bin/python -W ignore -c 'import sqlalchemy, submitit, tensorboard, torchmetrics, transformers, uplot, wandb'
	PYTHONPATH=$(CURDIR)/src $(EXTRAS)/bin/python -m pytest -q -n $(JOBS) -m extras tests $(ARGS)

# Compares the losses of the shipped experiments with the recorded losses; `make golden ARGS=--renew` records them again.
golden: $(STAMP)
	$(BIN)/python bench/golden_losses.py $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/plain_english.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
