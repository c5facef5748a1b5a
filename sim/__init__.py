"""Simulators of deployments, and the comparison of what they record."""
