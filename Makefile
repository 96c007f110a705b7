# make study | test | reference | lab: each sets up .venv itself when it is missing.
PYTHON ?= python3
DATA ?= planted
JOBS ?= 2
# Values reach the shell as they were typed: spaces, quotes, brackets, & and $ included.
quoted = '$(subst ','\'',$(value $(1)))'
STUDY = .venv/bin/msa tables --data $(call quoted,DATA) $(if $(value SEEDS),--seeds $(call quoted,SEEDS)) \
	$(if $(value SCALE),--scale $(call quoted,SCALE)) $(if $(value DEVICE),--device $(call quoted,DEVICE)) \
	$(if $(value STACK),--stack $(call quoted,STACK)) $(if $(value STORE),--store $(call quoted,STORE)) \
	$(if $(value RETRY),--retry-failed) --jobs $(call quoted,JOBS)

.PHONY: setup study test reference lab clean
.DEFAULT_GOAL := study

# The stamp is written last: an interrupted installation is taken up again, a finished one is left alone.
.venv/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "Python 3.10 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt torch
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -e '.[lab,test]'
	touch $@

setup: .venv/.complete

study: setup  ## every table and figure notebook; DATA=FOLDER SEEDS=5 for real files, RETRY=1 for failed runs, STACK=5 on a GPU
	$(STUDY)

test: setup  ## ruff, pytest, nbval
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 .venv/bin/python -m pytest -n 2 --dist loadscope --nbval-lax --nbval-current-env \
		--nbval-sanitize-with=tests/nbval.cfg -W default notebooks

reference: setup  ## the committed reference run, its figures and what the notebooks show of it, again; SEEDS=10
	.venv/bin/msa reference $(if $(value SEEDS),--seeds $(call quoted,SEEDS)) \
		$(if $(value STORE),--store $(call quoted,STORE)) --jobs $(call quoted,JOBS)

lab: setup
	.venv/bin/jupyter lab notebooks

clean:
	rm -rf .venv runs
