# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quick coverage mutants oldest wheel install lint types pytest docs site interop chips benchmark fuzz clean

demo: install
	$(BIN)/msg-deploy demo

test: install lint types site pytest oldest

install: $(VENV)/.installed

# A virtual environment: $(call environment,FOLDER,CONSTRAINTS,WHAT). torch first and by its exact version: looser
# specifications fetch gigabytes of CUDA libraries.
define environment
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check --constraint $(2) torch
	$(1)/bin/pip install --quiet --disable-pip-version-check --constraint $(2) $(3)
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call environment,$(VENV),constraints.txt,--editable '.[dev]')
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy sees what is shipped: the wheel, unpacked elsewhere.
types: install
	rm -rf build/types
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/types .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/types/site build/types/*.whl
	cd build/types/site && $(abspath $(BIN))/mypy --config-file ../../../pyproject.toml -p msg_deploy

# Processes of pytest; each computes with one thread.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

pytest: install
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# What to run while writing: all but what trains, runs commands of the documentation, or counts everything.
quick: install
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m 'not slow'

# The share of lines and branches that the tests run, commands in other processes included.
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) --cov --cov-branch --cov-report=term:skip-covered

# Mutants of the modules that verdicts rest on, by mutmut, which wants plain packages: the wheel, unpacked. What
# survives is listed by `mutmut results` there. docs/mutants.md explains it.
mutants: install
	rm -rf build/mutants
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt mutmut
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/mutants .
	cp -r tests build/mutants/
	cp tests/mutmut.toml build/mutants/pyproject.toml
	cd build/mutants && $(abspath $(BIN))/python tests/undecorated.py pyproject.toml
	cd build/mutants && OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(abspath $(BIN))/python -m mutmut run $(MUTANTS)

# The oldest versions that pyproject.toml accepts, in an environment of their own. Warnings of theirs are no errors;
# the published schema is that of the newest pydantic.
oldest:
	$(call environment,build/oldest,constraints-oldest.txt,--editable . hypothesis jsonschema pillow pytest)
	OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -o filterwarnings= -p no:cacheprovider \
		--deselect tests/test_report.py::test_the_published_schema_is_up_to_date \
		$(patsubst %,tests/test_%.py,$(OLDEST))
OLDEST := adversarial certificate certificate_equations checkpoint compare compare_by_hand files fold graph nir_file \
	onnx_file primitives quantize readout report simulators tolerance trace

# The wheel and the source distribution, built as for a release; the wheel is installed and its demo run elsewhere.
wheel: install
	rm -rf build/dist build/wheel
	$(BIN)/python -m build --outdir build/dist
	$(call environment,build/wheel,constraints.txt,build/dist/*.whl)
	mkdir -p build/wheel/elsewhere
	cd build/wheel/elsewhere && ../bin/msg-deploy demo

site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: install
	$(BIN)/python docs/generate.py

# Each framework in an environment of its own, build/interop/NAME, which is built if it is missing.
interop: install
	$(BIN)/python benchmarks/interop.py --output docs/interop.md

# Each vendor's model in an environment of its own, build/chips/NAME, which is built if it is missing.
chips: install
	$(BIN)/python benchmarks/chips.py --output docs/targets.md $(if $(NMNIST),--data-dir $(NMNIST))

# sinabs asks for an older nir, which it does not need here.
benchmark: install
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target build/sinabs sinabs==3.1.3 pbr setuptools
	PYTHONPATH=build/sinabs $(BIN)/python benchmarks/simulate.py --report docs/speed.md

# Coverage-guided, for SECONDS with each reader, on bytes and on edits; findings stay in build/fuzz.
SECONDS ?= 600
fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt atheris
	for kind in pt nir onnx; do for how in bytes edits; do \
		$(BIN)/python -m tests.fuzz $$kind $$how --seconds $(SECONDS) || exit 1; done; done

clean:
	rm -rf build $(VENV) *.egg-info
