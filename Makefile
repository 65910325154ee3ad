# Everything runs in .venv, which the first command makes. `make train ARGS="loop.eval_frequency=100"` overrides settings.
PYTHON ?= python3
HYDRA_NEXT ?= 1.4.0rc1
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
NEXT := .venv-hydra-next

.PHONY: install train test test-hydra-next check format

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

# The tests marked hydra, with the release candidate of Hydra's next version. It has an environment of its own, behind
# which that of .venv stands for everything else.
test-hydra-next: $(STAMP)
	test -x $(NEXT)/bin/python || $(BIN)/python -m venv --without-pip $(NEXT)
	$(BIN)/python -m pip --python $(NEXT)/bin/python install --quiet --disable-pip-version-check hydra-core==$(HYDRA_NEXT)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(NEXT)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_rest.pth"
	PYTHONPATH=src $(NEXT)/bin/python -m pytest -q -n $(JOBS) -m hydra tests $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
