.PHONY: test lint format types bench example

test:
	uv run --all-extras --all-groups pytest

lint:
	uv run ruff check .
	uv run ruff format --check .

format:
	uv run ruff check --fix .
	uv run ruff format .

types:
	uv run pyright

example:
	uv run infer.py data/examples/bunny_wakes.mp4 --report --overwrite

bench:
	uv run python -m bench.default_recipe
	uv run python -m bench.cut_alignment
	uv run python -m bench.styles
