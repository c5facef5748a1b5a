"""Integer normal form: weights, biases and inputs as whole numbers, thresholds off their grid.

The state of a neuron may be scaled freely: with W = s q the law is the same for state/s. So scales
go into thresholds and reset values, and what remains of a layer are integers. `prepare` writes a
network such that only scales are missing, `groups` says which layers must share one, `statistics`
measures what arrives, `scales` chooses, `apply` writes the integers; `finetune` trains with them.
"""
