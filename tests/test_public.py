"""What `import msg_deploy` offers is listed once for Python and once for type checkers."""

from __future__ import annotations

import ast
from pathlib import Path

import msg_deploy


def test_type_checkers_see_what_python_sees() -> None:
    tree = ast.parse(Path(msg_deploy.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        (name,) = line.names
        assert name.name == name.asname
        seen[name.name] = str(line.module).removeprefix("msg_deploy.")
    assert seen == msg_deploy.PUBLIC


def test_every_name_can_be_had() -> None:
    for name in msg_deploy.__all__:
        assert getattr(msg_deploy, name) is not None
    assert dir(msg_deploy) == msg_deploy.__all__
    assert len(msg_deploy.__all__) < 50
