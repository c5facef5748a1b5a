"""Where data sets are looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msg_deploy.data import DataOptions
from msg_deploy.errors import UsageError

ENVIRONMENT = "MSG_DEPLOY_DATA"
"""Environment variable with a folder of data sets, one sub-folder each, named like the set."""


def located(name: str, options: DataOptions, usual: Sequence[str | Path] = ()) -> Path:
    """The folder or file of a data set.

    Args:
        name: of the data set.
        options: its `directory` comes first, and is the only place if it is given.
        usual: places to look in after $MSG_DEPLOY_DATA/NAME and data/NAME.

    Raises:
        UsageError: it is nowhere; the text says where it was looked for.
    """
    if options.directory:
        path = Path(options.directory).expanduser()
        if not path.exists():
            raise UsageError(f"{path}: there is no such folder; --data-dir must name {name}'s.")
        return path
    shared = os.environ.get(ENVIRONMENT)
    places = [Path(shared) / name] if shared else []
    places += [Path("data") / name, *map(Path, usual)]
    for place in places:
        if place.exists():
            return place
    raise UsageError(
        f"the data set {name!r} is not in {', '.join(map(str, places))}; name its folder with "
        f"--data-dir, or set {ENVIRONMENT}. Nothing is downloaded."
    )
