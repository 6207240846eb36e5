# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP_DEMO := $(VENV)/.installed-all
STAMP_DEV := $(VENV)/.installed-dev

.PHONY: demo test sweep check format lint types layers fix clean

demo: $(STAMP_DEMO)  ## digits from training to int8, then real weights on photographs; about three minutes
	$(BIN)/edgecv demo

test: $(STAMP_DEV)  ## the tests; those of older CPUs are skipped where the emulator cannot be fetched
	-@$(BIN)/edgecv devices setup qemu-x86 --quiet
	$(BIN)/python -m pytest

sweep: $(STAMP_DEV)  ## every network through export and quantize, beside the few that `make test` takes; half an hour
	$(BIN)/python -m pytest -m sweep

check: format lint types layers test  ## what CI runs

format: $(STAMP_DEV)
	$(BIN)/ruff format --check .

lint: $(STAMP_DEV)
	$(BIN)/ruff check .

types: $(STAMP_DEV)
	$(BIN)/mypy

layers: $(STAMP_DEV)
	$(BIN)/lint-imports

fix: $(STAMP_DEV)  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) dist build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP_DEMO): $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[all]'
	touch $@

$(STAMP_DEV): $(STAMP_DEMO)
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	touch $@
