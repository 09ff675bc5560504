"""Data sets in shards (parquet, WebDataset), stored or streamed through Hugging Face's ``datasets``.

Shards are read one by one in random order; inside a shard, windows of ``WINDOW`` records are shuffled. A stream can
keep that order with little memory, and a stored data set keeps it too. Both therefore give the same samples in the
same order, and sample ``n`` is the same whether reading began at ``n`` or before it.
"""

from .dataset import ShardedDataset
from .files import is_sharded

__all__ = ["ShardedDataset", "is_sharded"]
