"""Which node of the right side is which of the left: by name, by origin, or as the user says.

The right side is renamed once, when it is opened; what comes behind knows the left side's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msg_deploy.deployment import Shape
from msg_deploy.errors import UsageError


def matched(
    left: Mapping[str, str], right: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """New names for the right side's nodes, by their names; only where they change.

    Nodes are matched as given, else by name, else by what both sides have recorded of where a node
    comes from, if one node of each side says so.

    Args:
        left: nodes of the left side, and where they come from: the name under which they were first
            exported, or their name.
        right: the same of the right side.
        given: names of the left side to names of the right side.

    Raises:
        UsageError: a given name is unknown, given twice, or would be taken.
    """
    _check(left, right, given)
    found = {theirs: mine for mine, theirs in given.items()}
    taken = {*given, *(name for name in right if name in left and name not in found)}
    open_left = [name for name in left if name not in taken]
    open_right = [name for name in right if name not in left and name not in found]
    for name in open_right:
        twins = [mine for mine in open_left if right[name] == left[mine]]
        rivals = [other for other in open_right if right[other] == right[name]]
        if len(twins) == len(rivals) == 1:
            found[name] = twins[0]
    return {theirs: mine for theirs, mine in found.items() if theirs != mine}


def _check(left: Mapping[str, str], right: Mapping[str, str], given: Mapping[str, str]) -> None:
    for side, known, names in (("left", left, given.keys()), ("right", right, given.values())):
        for name in names:
            if name not in known:
                raise UsageError(
                    f"--map: {name!r} is no node of the {side} side. {_listed(left, right)}"
                )
    theirs = list(given.values())
    for name in theirs:
        if theirs.count(name) > 1:
            mine = ", ".join(repr(x) for x, y in given.items() if y == name)
            raise UsageError(f"--map: {name!r} of the right side is given to {mine}; name it once.")
    for name, other in given.items():
        if name in right and name not in theirs:
            raise UsageError(
                f"--map: {name!r} shall be {other!r} of the right side, which has a node {name!r}, "
                f"too; say what that one is. {_listed(left, right)}"
            )


def _listed(left: Mapping[str, str], right: Mapping[str, str]) -> str:
    """The names that there are."""
    return f"Left: {', '.join(left) or 'none'}. Right: {', '.join(right) or 'none'}."


def suggested(left: Mapping[str, Shape], right: Mapping[str, Shape]) -> dict[str, str]:
    """Layers that have no counterpart, left to right, where shapes and order leave no choice.

    Args:
        left: shapes of those of the left side, in the order of execution.
        right: the same of the right side.
    """
    shapes = dict.fromkeys(left.values())
    pairs: dict[str, str] = {}
    for shape in shapes:
        mine, theirs = ([n for n, s in side.items() if s == shape] for side in (left, right))
        if len(mine) == len(theirs):
            pairs |= dict(zip(mine, theirs, strict=True))
    return {name: pairs[name] for name in left if name in pairs}


def parsed(texts: Sequence[str]) -> dict[str, str]:
    """What `--map LEFT=RIGHT` says.

    Raises:
        UsageError: no such pair, or a name of the left side twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        mine, equals, theirs = text.partition("=")
        if not (mine and equals and theirs):
            raise UsageError(f"--map must be LEFT=RIGHT, such as lif2=neuron, not {text!r}.")
        if found.setdefault(mine, theirs) != theirs:
            raise UsageError(f"--map: {mine!r} is given twice, as {found[mine]!r} and {theirs!r}.")
    return found
