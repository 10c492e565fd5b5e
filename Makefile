# Everything happens in .venv; each target can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
# The lock is complete: nothing is resolved (--no-deps) and nothing compiled (--only-binary). torch comes first and with
# what it needs, which differs between its CPU and CUDA builds.
INSTALL := $(PIP) install --quiet --no-deps --only-binary :all:

# Tests run side by side, each worker with one thread of its own and whole files, so that their fixtures are set up once.
WORKERS ?= logical
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile --durations 10

.PHONY: demo test soak lint browser lab ray lock clean clean-store
.DELETE_ON_ERROR:

demo: $(VENV)/.installed  ## the five steps on the embedded sample
	$(BIN)/python step.dev.py --config configs/demo.yaml

test: lint  ## style, types, layers, and every behaviour once
	$(PYTEST) -m "not slow"

soak: $(VENV)/.installed  ## what needs repetition or size: kills, many writers, bombs, large sets, full trainings
	$(PYTEST) -m slow

lint: $(VENV)/.installed  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

browser:  ## Chromium, for the tests of the service's page: installed where it is missing, on Debian as root
	@for name in $(CHROMIUM) chromium chromium-browser google-chrome; do if command -v $$name > /dev/null; then exit; fi; done; \
	test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq && apt-get install -qq -y chromium \
		|| echo "no Chromium was installed: the tests of the service's page are skipped"

lab: $(VENV)/.lab  ## JupyterLab, for editing the notebooks
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir steps $(if $(filter 0,$(shell id -u)),--allow-root)

ray: $(VENV)/.ray  ## Ray, for a machine of a cluster, and for the tests of clusters

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; v = sys.version_info[:3]; sys.exit(None if (3, 11, 5) <= v < (3, 14) else f"Python 3.11.5 to 3.13 is needed, this is {v}; set PYTHON=...")'
	@echo "installing into $(VENV), a few minutes the first time"
	$(PIP) install --quiet --only-binary :all: --constraint requirements.lock torch==2.13.0
	$(INSTALL) --requirement requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.lab: $(VENV)/.installed requirements.lab.lock
	$(INSTALL) --requirement requirements.lab.lock
	@touch $@

$(VENV)/.ray: $(VENV)/.installed requirements.ray.lock
	$(INSTALL) --requirement requirements.ray.lock
	@touch $@

# Versions that are already locked stay, unless pyproject.toml or LOCK_FLAGS=--upgrade says otherwise.
LOCK = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11.5 --no-annotate --no-header $(LOCK_FLAGS)
# leaves out torch with its CUDA packages, and the markers that every line would share
TRIM = sed -E "/^(torch|triton|cuda-|nvidia-[cn])/d; s/python_full_version < '3.14'( and )?//; s/platform_python_implementation == 'CPython'( and )?//; s/( and )?sys_platform != 'win32'//; s/ ; *$$//"

lock: $(VENV)/.installed  ## resolve pyproject.toml anew
	$(PIP) install --quiet uv
	cat requirements.lock requirements.lab.lock requirements.ray.lock > requirements.full.lock
	$(LOCK) --extra test --output-file requirements.full.lock && $(TRIM) requirements.full.lock > requirements.lock
	$(LOCK) --extra test --extra lab --output-file requirements.full.lock && $(TRIM) requirements.full.lock \
		| grep -vxFf requirements.lock > requirements.lab.lock
	cat requirements.lock requirements.ray.lock > requirements.full.lock
	$(LOCK) --extra test --extra ray --output-file requirements.full.lock && $(TRIM) requirements.full.lock \
		| grep -vxFf requirements.lock > requirements.ray.lock
	rm requirements.full.lock

clean:  ## remove what can be made again: the environment, the cache and the deliverables; .store stays
	rm -rf $(VENV) .cache out

clean-store:  ## remove .store, with all runs and artifacts; shows its size and asks first
	@test -d .store || { echo "there is no .store here"; exit 1; }
	@echo "this deletes $(CURDIR)/.store for good: $$(du -sh .store | cut -f1), $$(find .store -mindepth 4 -maxdepth 4 -path '*/runs/*' -type d | wc -l) runs"
	@printf "type 'yes' to delete it: "; read answer; test "$$answer" = yes || { echo "nothing was deleted"; exit 1; }
	rm -rf .store
