# make bench   measure what is missing, then make tables and report
# make test    all tests
# make check   lint and the quick tests
# Each first installs the exact versions in envs/requirements.lock into .venv, once.

PYTHON ?= python3
VENV := .venv
# One stamp per lock: an edited lock is installed, an unchanged one never again.
STAMP := $(VENV)/installed-$(shell cksum < envs/requirements.lock | cut -d' ' -f1)
# Tests without a run of Snakemake, real models, a browser or a cluster.
QUICK := $(addprefix tests/,analysis compare experiment machine models/test_architecture.py records render) \
  $(wildcard tests/test_*.py)
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: help setup bench test check lint lock
help:
	@sed -n 's/^# //p' Makefile

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1 || echo absent); Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@sh envs/check-driver.sh
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh envs/install-venv.sh $(PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	@echo "Installing $$(grep -c == envs/requirements.lock) packages into $(VENV): about 0.5 GB to download, and several GB more"
	@echo "where pip takes torch with CUDA, as on Linux by default. Without a GPU that is of no use; this takes the CPU build:"
	@echo "    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make ..."
	@echo "pip says nothing while it installs what it has collected, for a minute or two."
	$(VENV)/bin/pip install --disable-pip-version-check --no-compile --progress-bar on -r envs/requirements.lock
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true # on all CPUs; pip takes one
	touch $@

bench: setup
	$(RUN) snakemake --cores 1 --resources gpu=1

# Files of tests, three at a time: the one with a cluster mostly waits for it.
test: setup
	$(RUN) pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: lint
	$(RUN) pytest --quiet --numprocesses 2 --dist loadfile $(QUICK)

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) snakefmt --check Snakefile rules
	$(RUN) snakemake --lint

# Takes the newest versions that the ranges allow.
lock:
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 '.[ctranslate2,dev]'
	@{ sed -n '/^#/p' envs/requirements.lock; $(VENV)/bin/pip freeze --exclude inference-benchmark | \
	  sed -e 's/+cpu$$//' -e '/^nvidia-[a-z]*-cu/d' -e '/^nvidia-\(cu\|nccl\|nvshmem\)/d' -e '/^triton/d' -e '/^cuda-/d'; } > envs/requirements.new
	mv envs/requirements.new envs/requirements.lock
	touch $(VENV)/installed-$$(cksum < envs/requirements.lock | cut -d' ' -f1)
