"""Bugs of exporters are detected, found in the right layer, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msg_deploy.sim.diagnosis import diagnose
from msg_deploy.sim.verdict import Kind
from tests.mutations.bugs import BUGS
from tests.mutations.modules import MODULE_BUGS
from tests.mutations.networks import TORCH, deployments, rates
from tests.mutations.suite import (
    FILES,
    OPERATORS,
    Case,
    checked,
    graph_cases,
    module_cases,
    operator_cases,
    share,
    table,
    written,
)

RIGHT = 0.9
"""Share of bugs that must be found in the right layer, and with the right cause first."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """All bugs on all networks, each in one format; `python -m tests.mutations` takes all."""
    with pytest.MonkeyPatch.context() as patch:
        # Making inputs small is tested elsewhere.
        patch.setattr(diagnose, "reduce", lambda *arguments: None)
        folder = tmp_path_factory.mktemp("mutants")
        return [
            *graph_cases(folder, quick=True),
            *module_cases(),
            *operator_cases(folder, quick=True),
        ]


def test_there_are_enough(cases: list[Case]) -> None:
    assert len(BUGS) + len(MODULE_BUGS) >= 40
    assert len({case.bug for case in cases if case.changes}) >= 40
    assert len({case.network for case in cases}) == 5


def test_all_layers_fire() -> None:
    for name, deployment in deployments().items():
        for layer, rate in rates(deployment).items():
            assert 0.1 < rate < 0.7, (name, layer)


def test_every_change_is_detected(cases: list[Case]) -> None:
    assert [c for c in cases if c.changes and not c.detected] == []


def test_operators_of_onnx_files(cases: list[Case]) -> None:
    edited = [case for case in cases if case.kind == OPERATORS and case.changes]
    assert len({case.bug for case in edited}) >= 13
    assert share(edited, "layer") == 1
    assert share(edited, "named") >= RIGHT


@pytest.mark.parametrize("field", ["layer", "named"])
def test_layers_and_causes_are_right(cases: list[Case], field: str) -> None:
    wrong = [c for c in cases if c.changes and not getattr(c, field)]
    assert share(cases, field) >= RIGHT, f"{table(cases)}\n{wrong}"


@pytest.mark.parametrize("kind", [*FILES, "torch"])
def test_nothing_is_flagged_without_a_bug(kind: str, tmp_path: Path) -> None:
    for name, deployment in deployments().items():
        other: Any = TORCH[name]() if kind == "torch" and name in TORCH else None
        if kind != "torch":
            other = written(deployment, kind, tmp_path)
        if other is not None:
            verdict = checked(deployment, other)
            assert verdict, (name, verdict)
            assert verdict.kind in (Kind.IDENTICAL, Kind.PROVEN)
            assert verdict.diagnosis is None
