# make setup | demo | quick | test | gpu-check | mutants | coverage | multihost | lint | ui | clean. All but gpu-check and clean
# make .venv first when it is missing or older than the pins.
PYTHON ?= python3
RUN_DIR ?= runs/demo
PORT ?= 5000
ARGS ?=
BIN := .venv/bin
# Marks a .venv that this file may remove, also one whose making or installation was interrupted. Earlier versions made
# only the stamp.
MARK := .venv/made_by_make
IS_OURS := [ -e .venv/stamp ] || [ -e $(MARK) ]
IS_FINISHED := { [ -e .venv/stamp ] || [ ! -e $(MARK) ]; }
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

# Another PYTHON on the command line than that of .venv makes .venv anew.
PRINT_VERSION := -c 'import sys; print(sys.version)'
ifeq ($(origin PYTHON),command line)
ifneq ($(shell $(PYTHON) $(PRINT_VERSION)),$(shell $(BIN)/python $(PRINT_VERSION) 2>/dev/null))
.PHONY: .venv/stamp
endif
endif

# In an activated environment, PYTHON is that of .venv itself, which is removed before it could make another one.
PRINT_BASE := -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'

# Compiling all tests takes each pytest process seconds, so Python keeps the result whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo quick quick-tests test gpu-check mutants coverage multihost lint ui clean

setup: .venv/stamp

# The whole pipeline on the embedded data set: seven replicas, 144 crops. ARGS adds or overrides options. Validation
# changes no weight; after every second epoch it takes half the time.
demo: .venv/stamp
	$(BIN)/python pipelines/train_ensemble.py --recipe demo --validate-every-epochs 2 --run-dir '$(RUN_DIR)' $(ARGS)

# Lint and types, and beside them the tests that start no process: no cluster, server or browser.
quick: .venv/stamp
	@$(MAKE) --no-print-directory --jobs 2 lint quick-tests

# MLflow's stores and this project's files wait for a disk at each commit. Where 4 GB of memory are free for files, those
# of the tests lie there, and are removed at the end: a test that is run alone leaves its own in pytest's folder.
IN_MEMORY := df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print "-p /dev/shm" }'

quick-tests: .venv/stamp
	@folder=$$(mktemp -d $$($(IN_MEMORY))); trap 'rm -rf "$$folder"' EXIT; trap exit INT TERM; set -x; \
	PYTEST_DEBUG_TEMPROOT=$$folder $(PYTEST) -q -m "not processes" $(ARGS)

# Everything. Tests on the shared cluster run in one process, those without it beside them in another.
test: lint
	$(PYTEST) $(ARGS)

# On a machine with a GPU: correctness against a CPU, then figures, also where a check fails, in under ten minutes and
# without network. It uses the PYTHON of the command line, or a finished .venv, or else any Python with torch, numpy,
# opencv-python-headless, pillow and pytest. What takes too long is ended, after five and a half minutes and after 590 s.
gpu-check:
	@python=$(PYTHON); began=$$(date +%s); \
	if $(if $(filter command line,$(origin PYTHON)),false,[ -x $(BIN)/python ] && $(IS_FINISHED)); then python=$(BIN)/python; fi; \
	set -x; timeout --foreground -k 10 -s INT 330 $$python -m pytest tests/gpu -m gpu $(ARGS); checked=$$?; \
	left=$$((590 - $$(date +%s) + began)); \
	timeout --foreground -k 10 $$left $$python -m benchmarks.gpu --seconds $$((left - 60)) && exit $$checked

# The arithmetic broken on purpose in one place after another: do the tests notice? ARGS=--cluster tries all.
mutants: .venv/stamp
	$(BIN)/python -m tests.mutants $(ARGS)

# Lists the lines that no test reaches. Lines that run in Ray's workers and in other processes count as reached.
coverage: .venv/stamp
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(ARGS); status=$$?; \
	$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report && exit $$status

# Simulates three hosts on this machine, with a cluster on them and hosts that are lost. Needs root, sshd and rsync.
multihost: .venv/stamp
	GOOGLENET_MULTIHOST=1 $(BIN)/python -m pytest tests/multihost -s $(ARGS)

lint: .venv/stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Opens the MLflow store of the last run in runs/, or that of RUN_DIR.
ui: .venv/stamp
	$(BIN)/python pipelines/review.py --port $(PORT) $(if $(filter command line,$(origin RUN_DIR)),--run-dir '$(RUN_DIR)') $(ARGS)

clean:
	@if $(IS_OURS); then set -x; rm -rf .venv; fi
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* *.egg-info

.venv/stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@[ -z "$$(ls -A .venv 2>/dev/null)" ] || $(IS_OURS) || { echo "error: .venv was not made by make:" \
	"rename or remove it, and run make again" >&2; exit 1; }
	@echo "Installing the pinned packages into .venv: about 7 GB on Linux (PyTorch brings CUDA), usually 4 to 10 minutes."
	@set -e; base=$$($(PYTHON) $(PRINT_BASE)); set -x; rm -rf .venv; mkdir .venv; touch $(MARK); "$$base" -m venv .venv
	@quiet=--quiet; if [ -t 1 ]; then quiet=; fi; set -x; \
	$(BIN)/pip install $$quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
