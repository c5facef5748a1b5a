"""What all chip targets share: populations, profiles, decoders, placement.

A profile of one chip is one module in `msg_deploy.exporters.targets`.
"""
