# make report / make test / make bench / make dev: each sets up .venv by itself, the second run is quick.
# Arguments go through ARGS: make report ARGS="--full", make test ARGS="-k distances", make gate ARGS="--base v1".

ifeq ($(OS),Windows_NT)
PY := .venv/Scripts/python.exe
else
PY := .venv/bin/python
endif
STAMP := .venv/.installed
ARGS ?=
BASE ?=
PACKS ?= all
ASV = $(PY) -m asv --config benches/asv.conf.json

# What would make Python or pip look, or install, somewhere else than into .venv.
# Where packages come from (index, proxy, certificates, constraints) stays the user's choice.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONOPTIMIZE PYTHONWARNINGS __PYVENV_LAUNCHER__
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON PIP_NO_DEPS PIP_DRY_RUN PIP_EDITABLE PIP_REQUIREMENT
unexport PIP_REQUIRE_VIRTUALENV PIP_REQUIRE_HASHES PIP_NO_BUILD_ISOLATION PIP_NO_BINARY PIP_CONFIG_SETTINGS PIP_GLOBAL_OPTION

.DEFAULT_GOAL := help
.PHONY: help report test test-all bench bench-quick bench-compare bench-publish gate dev lint types wheel test-nojit test-oldest test-slow sklearn-tests clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

report: $(STAMP)  ## run every kernel in loop, NumPy and compiled form; write report/
	$(PY) -m benches report $(ARGS)

# On all CPUs, with what each process would compile for itself compiled before. With ARGS: pytest as it is.
test test-all: $(STAMP)
ifeq ($(strip $(ARGS)),)
	-$(PY) -m fastml warmup >/dev/null
	$(PY) -m pytest -n auto --maxprocesses 8 --dist worksteal $(if $(filter test,$@),-m quick)
else
	$(PY) -m pytest $(ARGS)
endif
test:  ## run the quick tests
test-all:  ## run all tests

sklearn-tests: $(STAMP)  ## run scikit-learn's own tests of the models that fastml has too, with fastml's in their place
	FASTML_SKLEARN_TESTS=all $(PY) -m pytest tests/fastml/test_drop_in.py $(ARGS)

bench: $(STAMP)  ## run the asv suite for HEAD (hours; ARGS="--bench Exp" for a part)
	$(ASV) machine --yes
	$(ASV) run $(ARGS) HEAD^!

bench-compare: $(STAMP)  ## run the asv suite for BASE=... and HEAD in turns
	@[ -n "$(BASE)" ] || { echo 'which commit? make bench-compare BASE=main ARGS="--bench Exp"' >&2; exit 2; }
	$(ASV) machine --yes
	$(ASV) continuous --interleave-rounds $(ARGS) $(BASE) HEAD

bench-publish: $(STAMP)  ## make a site from what the asv suite found, in .asv/html
	$(ASV) publish $(ARGS)

bench-quick: $(STAMP)  ## run the pytest-benchmark suite: loop, NumPy and JIT side by side
	$(PY) -m pytest benches/quick/test_kernels.py $(ARGS)

gate: $(STAMP)  ## compare with a base: is anything slower or wrong? (ARGS="--base main")
	$(PY) -m benches gate $(ARGS)

dev: $(STAMP)  ## set up .venv for work on fastml
	@# Editors and type checkers do not read setup.cfg: show them kernels/ where it is imported from.
	@[ -e fastml/kernels ] || ln -s ../kernels fastml/kernels || echo "no link fastml/kernels: only editors need it"
	@echo "ready: $(PY), or activate .venv"

lint: $(STAMP)  ## check style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

wheel: $(STAMP)  ## build dist/: sdist, wheel for any machine, wheel with machine code (PACKS="x86-64-v3": of one kind; PACKS=: none)
	.ci/wheel $(PACKS)

types test-nojit test-oldest test-slow: $(STAMP)
	.ci/run $@
types:  ## check types on the built wheel
test-nojit:  ## run the quick tests with Numba's JIT off, with coverage
test-oldest:  ## run the quick tests that versions can break with the oldest supported ones
test-slow:  ## run the tests that are not quick

clean:  ## remove .venv and everything that builds and tests leave
	rm -rf .venv build dist report htmlcov .asv .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks *.egg-info
	[ ! -L fastml/kernels ] || rm fastml/kernels
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An editable install remembers where the repository lies: one that was copied or moved is installed again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

# Run by a candidate for the environment's Python; a string without quotes or dollars.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))

# The first suitable Python. Candidates are tried by running them: a version manager's shim may stand
# for a Python that is not there. An environment that is sound is kept, so that an edit of pyproject.toml
# costs a look at the dependencies and no more.
$(STAMP): pyproject.toml setup.cfg
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(CURDIR)" ] || ! $(PY) -c '$(SUITABLE)' 2>/dev/null; then \
		python=; \
		for name in "$$PYTHON" python3.14 python3.13 python3.12 python3.11 python3 python; do \
			if [ -n "$$name" ] && "$$name" -c '$(SUITABLE)' >/dev/null 2>&1; then python=$$name; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "fastml needs Python 3.11 to 3.14 with the modules venv and ensurepip (Debian: package python3-venv)." >&2; \
			echo "None was found as python3.14, python3.13, python3.12, python3.11, python3, python; or set PYTHON=..." >&2; \
			exit 1; \
		fi; \
		echo "making .venv with $$python"; \
		"$$python" -m venv --clear .venv; \
	fi
	@rm -f $(STAMP)
	@# An install that sees the link takes it for the folder itself, and breaks when the link goes.
	@[ ! -L fastml/kernels ] || rm fastml/kernels
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[plot,bench,dev]"
	@# What pip would do on one CPU. Some packages bring files that are no Python, or of a later one.
	-@$(PY) -m compileall -qq -j 0 $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	@printf '%s\n' "$(CURDIR)" > $(STAMP)
