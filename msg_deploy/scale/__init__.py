"""Checks in shards: streamed, by several processes or a cluster, and resumed.

A shard is a range of samples that are run as one batch. The ranges depend on the models alone, so
that whoever computes a shard, and when, its numbers are the same; `sim.verdict.merge` joins them in
any order to the same result.

`work` runs one shard, `job` carries the work to other processes, `state` keeps finished shards in a
file. Where shards are computed is one module of `executors` each.
"""
