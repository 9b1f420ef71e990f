# `make report` and `make test` need Python 3.11 to 3.13 and make, nothing else: .venv is made on first use.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TWO := -n 2 --dist loadfile --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 300 -p no:cacheprovider $(TWO)
# Two notebooks at once train in their own kernels, one thread each, keeping freed memory; the longest come first, and
# those that share runs (01 with 02, 04 and 09; 04 with 12; 05 and 06 with 17; 10 with 11) never at once: one would wait.
ALONE := LOKY_MAX_CPU_COUNT=1 OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483648
LONGEST := $(foreach number,05 01 07 08 16 15 13 06 10 03,$(wildcard notebooks/$(number)_*.ipynb))
NOTEBOOKS := $(LONGEST) $(filter-out $(LONGEST),$(wildcard notebooks/*.ipynb))

.PHONY: report test lab zip same mutants fuzz gpu-check clean

report: $(READY)
	$(BIN)/grokcore report

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(TWO)
	cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	GROKCORE_CACHE="$$cache" $(ALONE) $(BIN)/python -m pytest $(NBVAL) $(NOTEBOOKS)

lab: $(READY)
	$(BIN)/jupyter lab notebooks

zip: $(READY)
	$(BIN)/grokcore report --zip grokcore-report.zip

# Compares this tree with an older commit: make same BASE=main
same: $(READY)
	@test -n "$(BASE)" || { echo "name the commit to compare with: make same BASE=COMMIT"; exit 2; }
	$(BIN)/python tests/tools/same.py $(BASE)

mutants: $(READY)
	$(BIN)/python tests/tools/mutate.py

fuzz: $(READY)
	cd tests && ../$(BIN)/python -m hostile.run

gpu-check: $(READY)
	$(BIN)/python benchmarks/gpu_check.py

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache drafts grokcore-report.zip

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	"Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into .venv (some minutes on the first use)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt -e .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib grokcore tests > /dev/null || true # on all cores, which pip does on one
	@touch $(READY)
