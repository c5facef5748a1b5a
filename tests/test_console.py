"""Names that come from files are printed as they are."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from msg_deploy import console
from msg_deploy.deployment import InputSpec, Timing
from msg_deploy.onchip import show
from msg_deploy.onchip.effect import Effect, LayerEffect
from msg_deploy.onchip.fit import LayerUse
from msg_deploy.report import tolerance
from msg_deploy.sim.activity import Activity, Spikes, Synapses
from msg_deploy.sim.verdict import Comparison, Layer, Verdict
from tests.helpers import chain, lif

NAME = "l[b]x[/c]:x:"
VERDICT = Verdict((Comparison(NAME, "b", 1, (Layer(NAME, 4, 2, 1, 0.0),)),))


def deployed() -> None:
    found = chain(lif(), inputs=(1,), outputs=(1,), steps=2)
    nodes = {NAME if name == "n0" else name: node for name, node in found.graph.nodes.items()}
    edges = [(a.replace("n0", NAME), b.replace("n0", NAME)) for a, b in found.graph.edges]
    console.print_deployment(found.with_graph(type(found.graph)(nodes, edges, type_check=False)))


def simulated() -> None:
    counts = np.ones(2)
    activity = Activity(1, 2, (Spikes(NAME, 1, counts),), (Synapses(NAME, 1, counts, "AC"),))
    console.print_simulation(
        SimpleNamespace(activity=activity, scores=[0], accuracy=None)  # type: ignore[arg-type]
    )


def quantized() -> None:
    layer = SimpleNamespace(
        name=NAME, bits=8, scale=(1.0, 1.0), largest_sum=1, digits=1, exact="float32"
    )
    spec = InputSpec((1,), levels=2)
    effect = SimpleNamespace(samples=1, accuracy=1, flips=0, spikes_changed=0, certified=1)
    console.print_quantization(
        SimpleNamespace(  # type: ignore[arg-type]
            layers=[layer],
            deployment=SimpleNamespace(input=spec),
            accuracy=1,
            plain=effect,
            finetuned=None,
            warnings=[NAME],
        )
    )


def described() -> None:
    values = [{"name": NAME, "type": "float", "shape": ["[b]", 3]}]
    console.print_onnx(
        {
            "inputs": values,
            "outputs": values,
            "opsets": {NAME: 17},
            "int8": False,
            "layout": "fold",
            "operators": {"Add": 1},
        },
        SimpleNamespace(  # type: ignore[arg-type]
            timing=Timing(),
            input=InputSpec((1,)),
            readout=None,
            integers=None,
            provenance=SimpleNamespace(classes=[NAME]),
        ),
    )


def affected() -> None:
    layer = LayerEffect(NAME, 4, 1, 0, 0)
    operations = dict.fromkeys(("spike", "synaptic operation", "neuron update"), 1.0)
    show.print_effect(Effect(1, None, None, None, 0, 0, (layer,), operations, None, ""))


def fitted() -> None:
    layer = LayerUse(NAME, (1,), 1, 1, 1, 1, 8, (NAME, NAME))
    chip = SimpleNamespace(uses=(), cores=(), approximations=(), problems=(NAME,))
    show.print_fit(
        SimpleNamespace(  # type: ignore[arg-type]
            name=NAME,
            title=NAME,
            chip=chip,
            layers=(layer,),
            quantized_here=False,
            effect=None,
            evidence=NAME,
            estimate=None,
        )
    )


def tolerated() -> None:
    for table in tolerance.tables(VERDICT):
        console.out.print(table)


@pytest.mark.parametrize(
    ("show_it", "times"),
    [
        (lambda: console.print_verdict(VERDICT), 2),
        (deployed, 2),
        (simulated, 2),
        (quantized, 2),
        (described, 4),
        (affected, 1),
        (fitted, 7),
        (tolerated, 4),
    ],
)
def test_names_are_no_markup(
    show_it: Callable[[], None], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "_width", 200)
    with console.out.capture() as shown:
        show_it()
    assert shown.get().count(NAME) >= times


def test_the_verdict_is_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "out", console.Console(force_terminal=True, no_color=False))
    with console.out.capture() as shown:
        console.print_styled("PROVEN", "bold", f"all {NAME}")
    assert shown.get() == f"\x1b[1mPROVEN\x1b[0m: all {NAME}\n"
