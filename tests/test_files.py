from __future__ import annotations

import os
from pathlib import Path

import pytest

from msg_deploy.errors import FileError
from msg_deploy.files import check_writable, replacing, write_folder, write_text


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
    (tmp_path / "taken").write_text("")
    for name in ("taken/file", "x" * 256):
        for write in (check_writable, lambda path: write_text(path, "")):
            with pytest.raises(FileError, match="cannot be written"):
                write(tmp_path / name)
        with pytest.raises(FileError, match="cannot be written"):
            write_folder(tmp_path / name, {}, "mark")
    (tmp_path / "taken").unlink()
    check_writable(tmp_path / "fine")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_folder_that_goes_away_hides_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(FileError, match="cannot be written"), replacing(folder / "file") as other:
        other.unlink()
        folder.rmdir()
        folder.write_text("a file")


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127])
def test_names_as_long_as_they_may_be(name: str, tmp_path: Path) -> None:
    check_writable(tmp_path / name)
    write_text(tmp_path / name, "new")
    assert (tmp_path / name).read_text() == "new"
    write_folder(tmp_path / name[1:], {"mark": b""}, "mark")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, name[1:]])
