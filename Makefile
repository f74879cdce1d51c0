# Starts from a bare clone with Python 3.11 or newer and make; everything is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/uv pip install --quiet --constraint requirements.lock

# Compiled modules are kept even where the environment says otherwise: torch alone has thousands to compile at each start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench docs clean

demo: .venv/demo.stamp
	$(BIN)/python -m maskwright demo --out runs/demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layers.py

# The comparison on nuclei trains for hours: it runs when NUCLEI names the folder of its data.
bench: .venv/dev.stamp
	for script in $(filter-out benchmarks/nuclei_%,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done
	test -z "$(NUCLEI)" || $(BIN)/python benchmarks/nuclei_vs_torchvision.py --data "$(NUCLEI)"

docs: .venv/dev.stamp
	$(BIN)/python docs/models.py
	$(BIN)/python docs/formats.py

.venv/uv.stamp:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	touch $@

.venv/demo.stamp: .venv/uv.stamp pyproject.toml requirements.lock
	$(INSTALL) --editable ".[demo]"
	touch $@

.venv/dev.stamp: .venv/uv.stamp pyproject.toml requirements.lock
	$(INSTALL) --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs
