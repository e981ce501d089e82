# make demo   the main job: train, export, compile, simulate the RTL, compare every number, write a report
# make test   the tests (two cores: under 15 minutes)      make test-full   with the slow sweeps
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-full lint bench clean

$(STAMP): pyproject.toml
	@for tool in $(PYTHON) g++ make perl; do command -v $$tool >/dev/null || \
	  { echo "bitloom needs '$$tool' on the PATH"; exit 1; }; done
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bitloom development needs Python >= 3.11, and $(PYTHON) is older: set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,sim,synth,formal,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/bitloom demo digits --out build/digits

test: $(STAMP) lint
	$(BIN)/pytest -n 2 -m 'not slow' --durations=10

test-full: $(STAMP) lint
	$(BIN)/pytest -n 2 --durations=20

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python bench/simulation_speed.py

clean:
	rm -rf build $(VENV)
