# make demo           run the lab sweep end to end      make test   run the tests; WITH=faults: test-faults too
# make check          check format, lint and types      make clean  delete the demo's results
# make check-install  resolve every platform's lock against the public package index
# make lock           regenerate the locks with the current versions if they still fit; UPGRADE=1 takes the newest
# make test-faults    run the fault-injection tests: killed jobs and processes
# make test-cluster   run sweeps in phases, over generations, on nodes that come and go, and in a bucket
# make test-fuzz      read thousands of damaged sweeps, runs, datasets and models; takes minutes
# make test-models    fine-tune, realign and serve tiny models of seven architectures; run the self-test; takes minutes
# make test-rebuild   retrain the lab's models and compare them with the shipped ones; takes minutes
# make docs           write the generated pages and build the documentation into site/
# make bench          time the alignment profile on real model shapes (needs 40 GB of disk)
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-faults test-cluster test-fuzz test-models test-rebuild check check-install lock docs bench format clean

demo: $(READY)
	$(BIN)/safecomm run sweeps/lab.yaml

test: $(READY)
	scripts/test.sh $(BIN)/pytest $(WITH)

test-faults: $(READY)
	$(BIN)/pytest -m faults

test-cluster: $(READY)
	$(BIN)/pytest -m cluster

test-fuzz: $(READY)
	$(BIN)/pytest -m fuzz

test-models: $(READY)
	$(BIN)/pytest -m "vllm and slow" tests/serving/test_architectures.py tests/selftest

test-rebuild: $(READY)
	$(BIN)/pytest -m rebuild

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

check-install: $(READY)
	$(BIN)/python scripts/check_install.py

lock: $(READY)
	$(BIN)/python scripts/lock.py $(if $(UPGRADE),--upgrade)

docs: $(READY)
	$(BIN)/python scripts/generated_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(READY)
	$(BIN)/python benchmarks/realign.py

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf runs

$(READY): pyproject.toml $(wildcard locks/*) scripts/install.sh
	PYTHON="$(PYTHON)" scripts/install.sh $(VENV)
	touch $@
