"""Files that are not trusted: the corpus of the fuzzers, earlier findings, and random edits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.edits import EDITS
from tests.fuzz.readers import READERS, attempt, seeds


class Drawn:
    """Choices by a random generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def below(self, count: int) -> int:
        return self.random.randrange(count)

    def text(self) -> str:
        return "".join(chr(self.random.randrange(1, 0x300)) for _ in range(self.below(6)))


@pytest.mark.parametrize("kind", READERS)
def test_the_corpus_is_read(kind: str, tmp_path: Path) -> None:
    """Whole files are accepted; what stands beside them under `broken` is refused."""
    for path in seeds(kind):
        assert attempt(kind, path.read_bytes(), tmp_path), path


@pytest.mark.parametrize("kind", READERS)
def test_edited_files_give_only_our_errors(kind: str, tmp_path: Path) -> None:
    whole = [path.read_bytes() for path in seeds(kind)]
    accepted = 0
    for seed in range(200):
        source = Drawn(seed)
        accepted += attempt(kind, EDITS[kind](source, source.random.choice(whole)), tmp_path)
    # Edits that are always refused, or never, would test little.
    assert 0 < accepted < 200
