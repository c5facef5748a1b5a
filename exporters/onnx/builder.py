"""Records ONNX nodes: names that are unique in the whole model, constants shared by all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from msg_deploy.deployment import Shape
from msg_deploy.errors import GraphError

DOMAIN = "msg_deploy"
"""Of the functions that are ours."""
DOMAIN_VERSION = 1
BATCH = "batch"
"""Name of the axis whose size is free."""

Axis = int | str


@dataclass
class Model:
    """What the nodes of all graphs of one model share.

    Attributes:
        dtype: of everything that is not an index.
        opset: of the standard operators.
        names: of values, with how often each was asked for.
        constants: initializers by their content.
        functions: of our domain that are called, by name.
    """

    dtype: np.dtype[Any]
    opset: int
    names: dict[str, int] = field(default_factory=dict)
    constants: dict[tuple[Any, ...], ir.Value] = field(default_factory=dict)
    functions: dict[str, ir.Function] = field(default_factory=dict)

    @property
    def element(self) -> ir.DataType:
        """The ONNX type of `dtype`."""
        return ir.DataType.from_numpy(self.dtype)

    def name(self, wanted: str) -> str:
        """A name that nothing else has: the wanted one, or it with a number."""
        while wanted in self.names:
            self.names[wanted] += 1
            wanted = f"{wanted}.{self.names[wanted]}"
        self.names[wanted] = 1
        return wanted

    def reserve(self, *names: str) -> None:
        """Keep names for inputs and outputs of the model."""
        self.names.update(dict.fromkeys(names, 1))

    def constant(self, value: npt.ArrayLike, name: str = "constant") -> ir.Value:
        """An initializer of the model's own type; equal ones are the same.

        Raises:
            GraphError: a number is too large for that type.
        """
        with np.errstate(over="ignore"):
            array = np.asarray(value).astype(self.dtype)
        if not np.all(np.isfinite(array)):
            raise GraphError(f"{name}: holds numbers that are too large for {self.dtype}.")
        return self._initializer(array, name)

    def integers(self, value: npt.ArrayLike, name: str = "shape") -> ir.Value:
        """An initializer of int64."""
        return self._initializer(np.asarray(value, np.int64), name)

    def raw(self, value: npt.NDArray[Any], name: str) -> ir.Value:
        """An initializer of the array's own type."""
        return self._initializer(value, name)

    def _initializer(self, value: npt.NDArray[Any], name: str) -> ir.Value:
        value = np.ascontiguousarray(value).reshape(value.shape)
        key = (value.dtype.str, value.shape, hashlib.sha256(value.data).digest())
        if key not in self.constants:
            tensor = ir.tensor(value, name=self.name(name))
            self.constants[key] = ir.Value(
                name=tensor.name,
                shape=ir.Shape(value.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        return self.constants[key]


class Builder:
    """Records the nodes of one graph, or of the body of a Scan or a function.

    Args:
        model: that they become part of.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[ir.Node] = []

    def __call__(self, operator: str, *inputs: ir.Value | None, **options: Any) -> ir.Value:
        """Add a node with one output, see `several`; `name` is that of the output."""
        names = [options.pop("name", operator)]
        (output,) = self.several(operator, *inputs, names=names, **options)
        return output

    def several(
        self,
        operator: str,
        *inputs: ir.Value | None,
        names: Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Add a node.

        Args:
            operator: its type.
            inputs: None for an optional one that is not given.
            names: wanted names of the outputs.
            domain: of the operator.
            attributes: numbers, texts, lists of them, or graphs.
        """
        outputs = [ir.Value(name=self.model.name(name)) for name in names]
        self.nodes.append(
            ir.Node(
                domain,
                operator,
                inputs,
                attributes=ir.convenience.convert_attributes(attributes),
                outputs=outputs,
                name=outputs[0].name,
            )
        )
        return tuple(outputs)

    def input(
        self, name: str, shape: Sequence[Axis], element: ir.DataType | None = None
    ) -> ir.Value:
        """A value that enters a graph; it becomes an input where the graph lists it."""
        value = ir.Value(name=self.model.name(name))
        return typed(value, shape, element or self.model.element)

    def result(
        self, value: ir.Value, name: str, shape: Sequence[Axis], element: ir.DataType | None = None
    ) -> ir.Value:
        """A value that leaves the model under just this name, which `Model.reserve` has kept."""
        output = self("Identity", value)
        output.name = name
        return typed(output, shape, element or self.model.element)

    def expanded(self, value: ir.Value, batch: ir.Value, shape: Shape) -> ir.Value:
        """A value of shape `shape` once for every sample: (B, *shape)."""
        sizes = self("Concat", batch, self.model.integers(shape), axis=0, name="sizes")
        return self("Expand", value, sizes, name=f"{value.name}.expanded")


def typed(value: ir.Value, shape: Sequence[Axis], element: ir.DataType) -> ir.Value:
    """The value itself, its type and shape now stated."""
    value.shape = ir.Shape(shape)
    value.type = ir.TensorType(element)
    return value


def function(
    name: str, inputs: Sequence[str], body: Callable[..., Sequence[ir.Value]], model: Model
) -> ir.Function:
    """A function of our domain.

    Args:
        name: of the operator that it defines.
        inputs: names of its inputs.
        body: (builder, *inputs) -> outputs.
        model: for type and opset; the function has names of its own.
    """
    own = Builder(Model(model.dtype, model.opset))
    values = [ir.Value(name=own.model.name(i)) for i in inputs]
    outputs = body(own, *values)
    graph = ir.Graph(values, outputs, nodes=own.nodes, opset_imports={"": model.opset}, name=name)
    documentation = (body.__doc__ or "").strip()
    made = ir.Function(DOMAIN, name, graph=graph, attributes=[])
    made.doc_string = documentation
    return made
