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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layers.py

# Trainings run for hours, each as its first lines say; peers that the development set-up does not install are asked for there.
TRAININGS := nuclei_% street_families% families_by_heart% training_ways% input_idle%
PEERS := boundary_ap% deformable_attention% mask2former_speed% small_models_peer%

bench: .venv/dev.stamp
	for script in $(filter-out _% $(TRAININGS) $(PEERS),$(notdir $(wildcard benchmarks/*.py))); do echo "== $$script"; $(BIN)/python benchmarks/$$script || exit 1; done
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
