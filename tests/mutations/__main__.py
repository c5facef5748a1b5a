"""Prints what the checks say about all bugs: `python -m tests.mutations`."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations.suite import (
    FILES,
    OPERATORS,
    graph_cases,
    module_cases,
    operator_cases,
    share,
    table,
)


def main() -> None:
    # Warnings of readers are not of interest here.
    logging.getLogger("msg_deploy").setLevel(logging.ERROR)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        found = [*graph_cases(files), *operator_cases(files), *module_cases()]
    for kind in (*FILES, OPERATORS, "torch"):
        cases = [case for case in found if case.kind == kind]
        print(f"\n## {kind}\n\n{table(cases)}\n")
        for case in cases:
            if case.changes and not (case.detected and case.layer and case.named):
                print(f"- {case.bug} on {case.network}: {case.found or 'nothing'}")
        shares = (f"{field} {share(cases, field):.1%}" for field in ("detected", "layer", "named"))
        print(f"\n{kind}: {', '.join(shares)} of {sum(c.changes for c in cases)} cases")
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
