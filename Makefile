# Each target sets up .venv by itself; nothing is installed elsewhere.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo $$p && break; done)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

.PHONY: help demo test test-all environments lint docs tutorials bench bench-accelerator results clean

help:
	@echo 'make demo            learn an RBM five ways on real digits; a report page (a minute or two)'
	@echo 'make test            the default tests'
	@echo 'make test-all        every test, the slow ones too'
	@echo 'make environments    the fast core on the newest packages for Python 3.11 and 3.13, and on the oldest'
	@echo 'make lint            style checks'
	@echo 'make docs            the documentation, into build/docs'
	@echo 'make tutorials       the tutorials run anew, with their pictures'
	@echo 'make bench           speed and memory, against lower bounds and other libraries'
	@echo 'make bench-accelerator  what the GPU or TPU at hand makes of it, some minutes, one file'
	@echo 'make results         one page of what the reproductions below have left: claims, tables, figures'
	@echo 'make reproduce-rbm   LW17 Figure 1(a) on MNIST (RESULTS=folder, SMOKE=1 for a quick look)'
	@echo 'make reproduce-cost    likelihood against evaluations and seconds, on MNIST (same options)'
	@echo 'make reproduce-modes   how many modes a Langevin chain sees (same options)'
	@echo 'make reproduce-amortized_svgd   WL16 section 2 on known densities (same options)'
	@echo 'make reproduce-particles   every direction on densities whose truth is known (same options)'
	@echo 'make reproduce-objectives   every way to learn an energy, where likelihood is exact (same options)'
	@echo 'make reproduce-image-energies   every way that scales to learn an energy of images (same options)'
	@echo 'make reproduce-steingan   LW17 Figure 1(b)-(d) on MNIST (same options)'
	@echo 'make reproduce-cifar10 FLAGS=--npz=cifar10.npz   LW17 Table 1 (same options)'
	@echo 'make reproduce-vgan       Z16 Tables 1 and 2, grids over rho, on MNIST (same options)'
	@echo 'make reproduce-vae-teaching     X21 Table 1 and figures, on MNIST (same options)'
	@echo 'make reproduce-recovery FLAGS=--path=facades.zip   X21 Table 2 (same options)'

.venv/installed: setup.py
	@test -n '$(PYTHON)' || { echo 'Python >= 3.11 is needed: make PYTHON=/path/to/python3'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

demo: .venv/installed
	$(BIN)/python -m experiments.demo

test: .venv/installed-test
	$(PYTEST)

test-all: .venv/installed-test .venv/installed-docs
	$(PYTEST) -m ''

environments: .venv/installed-test
	$(BIN)/python -m tests.environments

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo 'build/docs/index.html; with the search: python -m http.server --directory build/docs'

tutorials: .venv/installed-docs
	$(BIN)/python -m docs.execute docs/tutorials/*.py

reproduce-%: .venv/installed
	$(BIN)/python -m experiments.reproduce.$(subst -,_,$*) $(if $(RESULTS),--results=$(RESULTS)) $(if $(SMOKE),--smoke) $(FLAGS)

results: .venv/installed
	$(BIN)/python -m experiments.reproduce.page --results=$(or $(RESULTS),results)

bench: .venv/installed
	for name in primitives training loop langevin repulsion updates exact \
	  stein_peers; do \
	  $(BIN)/python -m experiments.benchmarks.$$name || exit 1; \
	done
	$(BIN)/python -m experiments.benchmarks.report

bench-accelerator: .venv/installed
	$(BIN)/python -m experiments.benchmarks.accelerator

clean:
	rm -rf .venv .venv-*
