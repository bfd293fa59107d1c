"""Size and structure of the source: `uv run python -m bench.house`.

Counts lines as `wc -l` does. bad_openers: docstrings whose first word is a question word or the like. Last line: one
JSON object.
"""

from __future__ import annotations

import ast
import json
import sys

from tests.fixtures.docstrings import first_lines, has_bad_opener
from tests.fixtures.import_graph import MODULES, PACKAGE, ROOT, cycles, module_graph, package_graph


def main() -> None:
    """Print the longest files and functions, then the figures."""
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in MODULES.values()}
    lengths = {name: source.count("\n") for name, source in sources.items()}
    functions: dict[str, int] = {}
    bad_openers: list[str] = []
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                functions[f"{name}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    for path in MODULES.values():
        bad_openers += [f"{path.relative_to(ROOT)}:{n}" for n, line in first_lines(path) if has_bad_opener(line)]
    for table in (lengths, functions):
        for name in sorted(table, key=lambda key: -table[key])[:5]:
            print(f"{table[name]:5} {name}")
    print(*bad_openers, sep="\n", file=sys.stderr)
    loose = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    figures = {
        "files": len(sources),
        "lines": sum(lengths.values()),
        "longest_file": max(lengths.values()),
        "longest_function": max(functions.values()),
        "loose_modules": len(loose),
        "cycles": len(cycles(package_graph())) + len(cycles(module_graph())),
        "bad_openers": len(bad_openers),
        "readme_bytes": (ROOT / "README.md").stat().st_size,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
