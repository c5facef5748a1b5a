"""Vendors' own models of their chips, each run by a script in an environment of its own.

A module here is read in two places. Imported by us it gives `TITLE`, `INSTALL` (arguments of
pip, one run after the other) and perhaps `CLONES` (folder in the environment, git repository and
commit), and must not import what it installs. Run by the Python of that
environment, `python MODULE.py EXPORT INPUTS OUTPUT`, it executes the files of an exported folder on
`inputs` (T, B, *shape) of INPUTS.npz, and writes OUTPUT.npz with `spikes_NAME` and, where the model
shows them, `membranes_NAME` (as they are at the decision) or `after_NAME` (after the reset), all
(T, B, *shape), for each population NAME of the folder's target.json, in the steps of the graph
(what is late by `late` steps is moved back; for a population without a threshold, which the decoder
reads, `after_NAME` has all steps of the chip). It imports nothing of ours.
"""
