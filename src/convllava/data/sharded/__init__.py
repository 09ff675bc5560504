"""Data sets in shards (parquet, WebDataset), stored or streamed through Hugging Face's ``datasets``.

Shards are walked one by one in random order; inside a shard, windows of ``WINDOW`` rows are shuffled. A stream can
keep that order with little memory, and a stored data set keeps it too, so that both give the same samples in the same
order, and position ``n`` of the walk is the same sample whether one walked there or started there.
"""

from .dataset import ShardedDataset

__all__ = ["ShardedDataset"]
