"""What `inspect` says about other importers, where it can be tried, is tried on them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import pytest
import torch

from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.hazards import hazards
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, lif

TWO, NONE = np.array([2, 2]), np.array([0, 0])
EYE = nir.Affine(np.eye(2), np.zeros(2))


def cuba(**values: float) -> nir.CubaLIF:
    fields = {"tau_syn": 1e-3, "tau_mem": 2e-3, "r": 2.0, "v_leak": 0.0, "v_threshold": 0.5}
    return nir.CubaLIF(**{n: np.full(2, v) for n, v in (fields | values).items()})


@pytest.mark.parametrize(
    ("nodes", "options", "said"),
    [
        ([lif((2,))], {"dt": 1e-3}, "dt is 0.001 s: snnTorch computes with 1e-4"),
        ([lif((2,))], {"reset": "subtract"}, "spikingjelly and snn-mlir reset to zero"),
        ([lif((2,))], {}, "sinabs, rockpool and spyx subtract the threshold"),
        ([lif((2,))], {}, "n0 (LIF): sinabs takes tau for steps"),
        ([lif((2,))], {}, "rockpool refuses it; spyx ignores r"),
        ([lif((2,))], {"dt": 1e-3}, "snn-mlir takes tau/r for dt"),
        ([nir.IF(*np.ones((2, 2)), np.zeros(2))], {}, "sinabs may give several spikes"),
        ([nir.IF(*np.full((2, 2), 2.0), np.zeros(2))], {}, "sinabs and spyx ignore r"),
        ([cuba(r=1.0)], {"dt": 1e-3}, "rockpool takes the least tau_mem/(1 + r) for dt"),
        ([cuba()], {"dt": 1e-3}, "spyx is a step late"),
        ([cuba()], {"dt": 5e-4}, "spyx ignores r and w_in"),
        ([nir.LI(*np.ones((3, 2)))], {}, "rockpool gives zeros"),
        ([nir.Delay(np.ones(2))], {}, "sinabs and spyx pass its input through"),
        ([lif((2,), r=2.0)], {}, "n0 (LIF): Norse ignores r"),
        ([lif((2,), v_reset=-0.1)], {}, "reset to 0, not to v_reset"),
        ([lif((2,), v_leak=0.1)], {}, "refuses a v_leak"),
        ([nir.IF(*np.ones((2, 2)), np.zeros(2))], {}, "r = 1/dt"),
        ([cuba(r=1.0)], {"dt": 1e-3}, "unless r = tau_mem/dt"),
        ([nir.LI(*np.ones((3, 2)))], {}, "n0 (LI): Norse drops it"),
        ([nir.Scale(np.ones(2))], {}, "passes its input through"),
        ([lif((2,)), EYE], {"edges": [("n1", "n0")]}, "recurrence in a flat graph"),
        ([lif((2,)), EYE, lif((2,))], {"edges": [("n0", "n2")]}, "n2 (LIF): branches meet"),
        ([lif((2,)), EYE], {"edges": [("n0", "output")]}, "several edges"),
    ],
)
def test_what_is_said(nodes: Any, options: Any, said: str) -> None:
    found = hazards(chain(*nodes, inputs=[2], outputs=[2], **options))
    assert any(said in sentence for sentence in found), found


def test_images() -> None:
    deployment = chain(
        nir.Conv2d(None, np.ones((2, 1, 3, 2)), 1, 0, 1, 2, np.zeros(2)),
        nir.AvgPool2d(TWO, TWO, NONE),
        nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
        inputs=[2, 6, 5],
        outputs=[8],
    )
    found = " ".join(hazards(deployment))
    for said in (
        "groups",
        "not square",
        "Norse sums instead",
        "count the batch",
        "channels last",
        "spyx leaves it out",
    ):
        assert said in found


def test_nothing_is_said_of_portable_graphs_but_their_skips() -> None:
    deployment = chain(EYE, lif((2,)), EYE, lif((2,)), inputs=[2], outputs=[2])
    assert hazards(in_dialect(deployment, "portable")) == ()
    deployment.graph.nodes["back"] = nir.Linear(np.eye(2))
    deployment.graph.edges += [("n1", "back"), ("back", "n1")]
    assert any("recurrence" in said for said in hazards(deployment))
    assert hazards(in_dialect(deployment, "portable")) == ()


def test_a_file_for_one_destination_is_for_it_alone() -> None:
    deployment = chain(EYE, lif((2,)), inputs=[2], outputs=[2], reset="subtract", dt=1e-3)
    (said,) = hazards(in_dialect(deployment, "spyx"))
    assert said.startswith("written for spyx alone")


def test_images_elsewhere() -> None:
    two, one = np.array([2, 2]), np.array([1, 1])
    deployment = chain(
        nir.Conv2d(None, np.ones((1, 1, 2, 2)), 1, 0, 2, 1, np.zeros(1)),
        lif((1, 3, 3)),
        nir.SumPool2d(two, two, one),
        inputs=[1, 5, 5],
        outputs=[1, 2, 2],
    )
    found = " ".join(hazards(deployment))
    for said in ("spyx ignores dilation", "more than one dimension", "sinabs ignores padding"):
        assert said in found


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    "node",
    [
        lif((2,), r=2.0),
        lif((2,), v_reset=-0.3),
        nir.LI(np.full(2, 4e-3), np.ones(2), np.zeros(2)),
        nir.Scale(np.full(2, 3.0)),
        nir.Delay(np.full(2, 2e-3)),
        nir.Threshold(np.full(2, 0.5)),
    ],
    ids=lambda node: type(node).__name__,
)
def test_norse_does_differ_where_we_say_so(node: Any) -> None:
    deployment = chain(EYE, node, inputs=[2], outputs=[2], steps=12, dt=1e-3)
    assert any("Norse" in said and "n1" in said for said in hazards(deployment))
    inputs = np.random.default_rng(0).uniform(0, 1, (12, 4, 2)).astype(np.float32)
    expected = Reference().run(deployment, inputs).outputs
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            model, state, outputs = norse.from_nir(deployment.graph, dt=1e-3), None, []  # noqa: TID251
            for x in torch.from_numpy(inputs):
                y, state = model(x, state)
                outputs.append(y)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
        return  # refused, not misread
    assert not np.allclose(torch.stack(outputs).numpy(), expected, atol=1e-3)
