"""SynSense Xylo Audio 2 (SYNS61201); see `exporters.chips.xylo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msg_deploy.exporters.chips.target import Limit
from msg_deploy.exporters.chips.xylo import COMMON, OVERVIEW, Xylo
from msg_deploy.exporters.targets import register

MAPPER = "rockpool 3.1.0, devices/xylo/syns61201/xylo_mapper.py"
RAM = "rockpool 3.1.0, devices/xylo/syns61201/xa2_devkit_utils.py: 32,000 words from RWTRAM on"


@register
class XyloAudio2(Xylo):
    """Eight output neurons; every hidden neuron may take inputs and reach outputs."""

    name = "xylo_audio2"
    title = "SynSense Xylo Audio 2"
    limits: ClassVar[Mapping[str, Limit]] = {
        **COMMON,
        "hidden": Limit(1000, "hidden neurons", MAPPER),
        "outputs": Limit(8, "output neurons", MAPPER),
        "fan_out": Limit(64, "hidden synapses of a hidden neuron", OVERVIEW),
        "synapses": Limit(32_000, "hidden synapses", RAM),
        "input_reach": Limit(1000, "hidden neurons up to the last with inputs", OVERVIEW),
        "output_reach": Limit(1000, "hidden neurons from the first with outputs on", OVERVIEW),
    }
