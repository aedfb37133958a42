# make demo: see it work.  make test: install and pass the tests.  make check: what tools enforce.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DICOM ?=

.PHONY: venv demo test peers check format bench constraints clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt .ci/install-venv
	.ci/install-venv "$(PYTHON)" "$(VENV)"

demo: venv
	$(BIN)/python -m pacs_bridge.demo $(if $(DICOM),--dicom "$(DICOM)")

test: venv peers
	$(BIN)/pytest -n auto --dist loadfile

peers:
	.ci/install-peers

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv peers
	$(BIN)/python -m benchmarks study
	$(BIN)/python -m benchmarks reconstruct
	$(BIN)/python -m benchmarks receive
	$(BIN)/python -m benchmarks faults
	$(BIN)/python -m benchmarks fuzz

# Take over the versions of a fresh environment that passed the tests.
constraints: venv
	{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --all --exclude-editable --exclude pip; } > constraints.new
	mv constraints.new constraints.txt

# Never touches ctriage-state: that is where a service keeps studies.
clean:
	rm -rf ctriage-demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
