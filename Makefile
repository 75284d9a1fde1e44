# Each target sets up the environment that it needs; a second call reuses it.
# .venv has the locked versions, .venv-lowest the lowest ones of setup.cfg, .venv-newest the newest releases.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# All extras but `ray`, whose wheels are large and whose one example is tried by hand, and `evaluation`, whose library
# does not accept the locked versions (`test-lmms`).
EXTRAS := convert,data,emoji,training,plots,peft,evaluate,quantization,serving,docs,test

# The other environments link the torch of .venv. To try another torch with them:
#   make clean && make test-lowest TORCH="torch==2.11.0 torchvision==0.26.0"
TORCH ?=

# What `make test-newest` installs over the newest releases, for example development versions.
NEWER ?=

.PHONY: demo test test-slow fuzz bench test-lowest test-newest test-lmms lint docs lock wheel clean

demo: $(VENV)/.installed
	$(BIN)/vilau demo

# A worker a core, of one thread each: threads of several workers on the same cores slow one another down.
PYTEST := python -m pytest --numprocesses auto --dist loadfile

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST)

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) -m slow

# Tries the public functions with generated arguments: make fuzz CASES=20000
CASES ?= 1000
fuzz: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --cases $(CASES)

# Runs the short benchmarks, about ten minutes, and compares their figures with the committed ones.
bench: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/short.py

test-lowest: $(VENV)-lowest/.installed
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/$(PYTEST)
	$(VENV)-lowest/bin/python .ci/check_demo.py

# Installs without the ranges of setup.cfg, so that a release that they do not allow yet is tried too.
test-newest: $(VENV)-newest/.torch
	$(VENV)-newest/bin/python -m pip install --upgrade packaging
	$(VENV)-newest/bin/python -m pip install --upgrade $$($(VENV)-newest/bin/python .ci/newest.py names $(EXTRAS))
	$(if $(NEWER),$(VENV)-newest/bin/python -m pip install --upgrade $(NEWER))
	$(VENV)-newest/bin/python -m pip install --no-deps --editable .
	$(VENV)-newest/bin/python .ci/newest.py check $(EXTRAS)

# Runs lmms-eval with the adapter, without the network.
test-lmms: $(VENV)-lmms/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)-lmms/bin/python -m pytest tests/integrations/test_lmms_eval.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Builds the site of guides, notebooks and reference in site/, without the network; a warning is an error.
# A notebook runs only if its page is missing, or if the notebook or the package changed since.
docs: $(VENV)/.installed-test
	$(BIN)/python .ci/build_notebooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Builds dist/*.whl, and tries it in an environment of its own.
wheel: $(VENV)/.installed-test $(VENV)-wheel/.torch
	rm $(VENV)-wheel/.torch  # the environment is used once
	$(BIN)/python .ci/check_wheel.py $(VENV)-wheel

# Writes the newest releases of today into requirements/lock.txt, and the lowest that setup.cfg allows into lowest.txt.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)-lock/bin/uv pip compile setup.cfg --quiet --upgrade \
	--universal --python-version 3.11 --strip-extras --constraints requirements/torch.txt \
	$(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra))
comma := ,

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --upgrade uv
	$(COMPILE) --output-file requirements/lock.txt
	$(COMPILE) --resolution lowest-direct --output-file requirements/lowest.txt

$(VENV)/.torch: requirements/torch.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint requirements/lock.txt torch torchvision
	touch $@

$(VENV)/.installed: $(VENV)/.torch setup.cfg pyproject.toml requirements/lock.txt
	$(BIN)/python -m pip install --constraint requirements/lock.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.torch setup.cfg pyproject.toml requirements/lock.txt
	$(BIN)/python -m pip install --constraint requirements/lock.txt --editable ".[$(EXTRAS)]"
	touch $(VENV)/.installed $@

$(VENV)-%/.torch: $(if $(TORCH),,$(VENV)/.torch)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python $(if $(TORCH),-m pip install $(TORCH),.ci/link_torch.py $(VENV))
	touch $@

$(VENV)-lowest/.installed: $(VENV)-lowest/.torch setup.cfg pyproject.toml requirements/lowest.txt
	cp requirements/lowest.txt $(@D)/constraints.txt
	$(if $(TORCH),sed -i -E '/^(torch|torchvision|triton|setuptools|cuda-.*|nvidia-.*)==/d' $(@D)/constraints.txt)
	$(if $(TORCH),printf '%s\n' $(TORCH) >>$(@D)/constraints.txt)
	$(@D)/bin/python -m pip install --constraint $(@D)/constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

# uv, since pip takes minutes for the 150 packages of lmms-eval.
$(VENV)-lmms/.installed: $(VENV)-lmms/.torch setup.cfg pyproject.toml
	$(@D)/bin/python -m pip install --upgrade uv
	$(@D)/bin/uv pip install --python $(@D)/bin/python --editable ".[evaluation]" "pytest>=8"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-*
