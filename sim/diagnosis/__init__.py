"""Diagnosis of a divergence: which layers are at fault, and as what they behave.

`segments` cuts a graph between its spiking layers, `evidence` feeds each of them what the other
side recorded (teacher forcing), `hypotheses` change it, `testing` keeps the changes under which the
difference vanishes, `reduce` makes the input small, `diagnose` does all of it, `told` says it.
"""
