"""Coverage-guided fuzzing by atheris: python -m tests.fuzz KIND bytes|edits [--seconds 600].

"bytes" changes the bytes of files of the corpus; "edits" chooses edits of them that keep their
outer form. What crashes, hangs for 20 s or takes more than 3 GB is kept under build/fuzz/KIND-HOW.
Needs atheris (pip install atheris==3.0.0), which is not among the requirements of the tests.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

# What decides over files; kernels that numba compiles cannot be instrumented.
MODULES = [
    "msg_deploy.architecture",
    "msg_deploy.checkpoint",
    "msg_deploy.deployment",
    "msg_deploy.exporters.dialects",
    "msg_deploy.exporters.inline",
    "msg_deploy.exporters.legacy",
    "msg_deploy.exporters.nir",
    "msg_deploy.exporters.onnx.contract",
    "msg_deploy.exporters.onnx.file",
    "msg_deploy.graph",
    "msg_deploy.primitives",
    "nir",
]
with atheris.instrument_imports(include=MODULES):
    from tests.fuzz.edits import EDITS
    from tests.fuzz.readers import READERS, attempt, seeds


class Bytes:
    """Choices from the bytes that atheris gives."""

    def __init__(self, content: bytes) -> None:
        self.provider = atheris.FuzzedDataProvider(content)

    def below(self, count: int) -> int:
        return int(self.provider.ConsumeIntInRange(0, count - 1))

    def text(self) -> str:
        return str(self.provider.ConsumeUnicodeNoSurrogates(self.below(12)))


def main() -> None:
    """Fuzz one reader for some time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=READERS)
    parser.add_argument("how", choices=["bytes", "edits"])
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    kind = arguments.kind
    found = Path("build", "fuzz", f"{kind}-{arguments.how}")
    found.mkdir(parents=True, exist_ok=True)
    corpus = found / "corpus"
    corpus.mkdir(exist_ok=True)
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    whole = [path.read_bytes() for path in seeds(kind)]

    def with_bytes(content: bytes) -> None:
        attempt(kind, content, folder)

    def with_edits(content: bytes) -> None:
        source = Bytes(content)
        edited = EDITS[kind](source, whole[source.below(len(whole))])
        attempt(kind, edited, folder)

    if arguments.how == "bytes":
        for path in seeds(kind):
            shutil.copy(path, corpus)
    options = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={arguments.seconds}",
        "-timeout=20",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
        *([] if arguments.how == "bytes" else ["-max_len=512", "-len_control=0"]),
    ]
    logging.disable()
    atheris.Setup(options, with_bytes if arguments.how == "bytes" else with_edits)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
