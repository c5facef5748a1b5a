"""For `make mutants`: mutmut leaves decorated functions alone, so decorate them behind.

    python tests/undecorated.py pyproject.toml

rewrites the files that are mutated in place: `@rule(nir.Scale) def f` becomes `def f` and
`f = rule(nir.Scale)(f)`, also in classes. A kernel is run by Python: numba would not see mutants,
which are chosen at each call.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

NOT_CALLED = ("dataclass", "staticmethod", "classmethod")


def undecorated(source: str) -> str:
    """The same module, with the decorators of its functions and methods behind them."""
    lines = source.splitlines()
    for node in sorted(_functions(ast.parse(source)), key=lambda n: -n.lineno):
        first, last = node.decorator_list[0].lineno - 1, node.end_lineno
        assert last is not None
        indent = " " * node.col_offset
        behind = [_applied(node, decorator, indent) for decorator in reversed(node.decorator_list)]
        lines[first:last] = [*lines[node.lineno - 1 : last], *behind]
    return "\n".join(lines) + "\n"


def _functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Decorated functions of the module and of its classes."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return [
        node
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef)
        and node.decorator_list
        and not any(ast.unparse(d).startswith(NOT_CALLED) for d in node.decorator_list)
    ]


def _applied(node: ast.FunctionDef, decorator: ast.expr, indent: str) -> str:
    name, text = node.name, ast.unparse(decorator)
    if text == "kernel":
        return f"written_{name} = {name}\n{name} = lambda work, *arrays: written_{name}(*arrays)"
    return f"{indent}{name} = {text}({name})"


if __name__ == "__main__":
    settings = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["tool"]["mutmut"]
    for pattern in settings["only_mutate"]:
        for path in Path().glob(pattern):
            path.write_text(undecorated(path.read_text(encoding="utf-8")), encoding="utf-8")
