from __future__ import annotations

import os
from pathlib import Path

import pytest

from msg_deploy.errors import FileError
from msg_deploy.files import check_writable, replacing, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_replacing_keeps_permissions(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o600)
    write_text(target, "new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        check_writable(tmp_path / "none" / "file")
    with pytest.raises(FileError, match="is a directory"):
        check_writable(tmp_path)
    check_writable(tmp_path / "fine")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
