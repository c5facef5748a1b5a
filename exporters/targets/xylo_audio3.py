"""SynSense Xylo Audio 3 (SYNS65302); see `exporters.chips.xylo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msg_deploy.exporters.chips.target import Limit
from msg_deploy.exporters.chips.xylo import COMMON, OVERVIEW, Xylo
from msg_deploy.exporters.targets import register

MAPPER = "rockpool 3.1.0, devices/xylo/syns65302/xylo_mapper.py"
RAM = "rockpool 3.1.0, devices/xylo/syns65302/ram.py"


@register
class XyloAudio3(Xylo):
    """Inputs reach the first 128 hidden neurons, and the last 128 reach the 32 outputs."""

    name = "xylo_audio3"
    title = "SynSense Xylo Audio 3"
    limits: ClassVar[Mapping[str, Limit]] = {
        **COMMON,
        "hidden": Limit(992, "hidden neurons", MAPPER),
        "outputs": Limit(
            32,
            "output neurons",
            f"{MAPPER} (its design rule warns above 16); {RAM}: OWTRAM has 4,096 = 32 x 128 words",
        ),
        "fan_out": Limit(1024, "hidden synapses of a hidden neuron", OVERVIEW),
        "synapses": Limit(31_744, "hidden synapses", f"{RAM}: words of HWTRAM"),
        "input_reach": Limit(
            128, "hidden neurons up to the last with inputs", f"{RAM}: IWTRAM has 16 x 128 words"
        ),
        "output_reach": Limit(
            128, "hidden neurons from the first with outputs on", f"{RAM}: OWTRAM has 32 x 128"
        ),
    }
