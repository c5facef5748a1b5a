"""Plain NIR, every primitive as it is."""

from __future__ import annotations

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.dialects import dialect


@dialect
def nir(deployment: Deployment) -> Deployment:
    """Nothing changes."""
    return deployment
