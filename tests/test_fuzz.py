"""Files that are not trusted: the corpus of the fuzzers, earlier findings, and random edits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.edits import EDITS
from tests.fuzz.readers import CORPUS, READERS, attempt, seeds

FINDINGS = CORPUS.with_name("findings")


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
    for path in seeds(kind):
        assert attempt(kind, path.read_bytes(), tmp_path), path


@pytest.mark.parametrize("path", sorted(FINDINGS.iterdir()), ids=lambda path: path.name)
def test_findings_are_refused(path: Path, tmp_path: Path) -> None:
    """Files on which a reader once raised something else, hung, or took gigabytes."""
    assert not attempt(path.suffix[1:], path.read_bytes(), tmp_path)


@pytest.mark.parametrize("kind", READERS)
def test_edited_files_give_only_our_errors(kind: str, tmp_path: Path) -> None:
    whole = [path.read_bytes() for path in seeds(kind)]
    accepted = 0
    for seed in range(200):
        source = Drawn(seed)
        accepted += attempt(kind, EDITS[kind](source, source.random.choice(whole)), tmp_path)
    # Edits that are always refused, or never, would test little.
    assert 0 < accepted < 200
