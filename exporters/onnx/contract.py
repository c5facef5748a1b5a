"""What a model of ours says about itself, beside the metadata that every deployment carries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from msg_deploy.deployment import Dimension, Finite, explain
from msg_deploy.errors import GraphError
from msg_deploy.options import Layout

CONTRACT_KEY = "msg_deploy.onnx"

_STRICT = ConfigDict(extra="forbid")
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, config=_STRICT)
class Recorded:
    """Where the values of a node are found.

    Attributes:
        node: its name.
        shape: of one sample at one step.
        tensors: names; joined along the first axis they hold T x B x shape values in this order,
            or B x shape if all steps are equal, or those of one step in the layout "step".
        threshold: of a spiking node, if all its neurons have the same.
    """

    node: str
    shape: tuple[Dimension, ...]
    tensors: tuple[Text, ...]
    threshold: Finite | None = None


@dataclass(frozen=True, config=_STRICT)
class Streamed:
    """A state of the layout "step"; it starts at zero.

    Attributes:
        input: name of the model's input.
        output: name of the output to hand in at the next step.
        shape: without batch.
    """

    input: Text
    output: Text
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, config=_STRICT)
class Contract:
    """The content of the property `msg_deploy.onnx`.

    Attributes:
        layout: "sequence", "step" or "unrolled".
        order: nodes of the graph in the order of execution.
        spiking: spiking nodes in that order.
        currents: I_L of the output layer, node by node; empty if the steps are not put out.
        states: of the layout "step".
        int8: products are computed with integers where spikes arrive.
    """

    layout: Layout
    order: tuple[str, ...]
    spiking: tuple[Recorded, ...]
    currents: tuple[Recorded, ...] = ()
    states: tuple[Streamed, ...] = ()
    int8: bool = False
    format: Literal[1] = 1


_CONTRACT = TypeAdapter(Contract)


def contract_to_json(contract: Contract) -> str:
    """The JSON text of a contract."""
    return _CONTRACT.dump_json(contract).decode()


def contract_from_json(text: str | bytes) -> Contract:
    """Parse and check a contract.

    Raises:
        GraphError: not JSON, a field is missing, unknown or outside its range.
    """
    try:
        return _CONTRACT.validate_json(text)
    except ValidationError as error:
        raise GraphError(f"property {CONTRACT_KEY!r}: {explain(error)}") from error
