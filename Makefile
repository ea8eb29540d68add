# make demo         run the lab sweep end to end      make test   run all tests
# make check        check format, lint and types      make clean  delete the demo's results
# make test-faults  run the fault-injection tests: killed sweeps, jobs, processes and nodes; failing W&B
# make bench        time the alignment profile on real model shapes (needs 40 GB of disk)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-faults check bench format clean

demo: $(READY)
	$(BIN)/safecomm run sweeps/lab.yaml

test: $(READY)
	$(BIN)/pytest

test-faults: $(READY)
	$(BIN)/pytest -m faults

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/realign.py

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf runs

$(READY): pyproject.toml constraints.txt scripts/install.sh scripts/vllm_cpu_needs.py
	PYTHON=$(PYTHON) scripts/install.sh $(VENV)
	touch $@
