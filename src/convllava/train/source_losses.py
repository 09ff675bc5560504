"""The training loss of each source of a mixture, from the logits that the step computes anyway."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..constants import IGNORE_INDEX
from .data_loading import MicroBatch


class SourceLosses:
    """Sums of the loss and numbers of supervised tokens by source since the last log line, on this process.

    Args:
        names: Names of the sources. With one source nothing is counted: its loss is the loss.
        device: Device of the sums.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = list(names) if len(names) > 1 else []
        self.sums = torch.zeros(len(self.names), dtype=torch.float64, device=device)
        self.tokens = [0] * len(self.names)

    @torch.no_grad()
    def add(self, batch: MicroBatch, logits: Tensor | None) -> None:
        """Count a micro-batch.

        Args:
            batch: The micro-batch.
            logits: (N, T, V); None where the loss comes from something else, which is then not counted.
        """
        if not self.names or logits is None:
            return
        tokens = supervised_by_sample(batch.inputs)
        sources = torch.tensor(
            [source for source, count in zip(batch.sources, tokens, strict=True) for _ in range(count)]
        )
        labels = batch.inputs["labels"][:, 1:].to(logits.device)
        supervised = labels != IGNORE_INDEX
        losses = nn.functional.cross_entropy(logits[:, :-1][supervised].float(), labels[supervised], reduction="none")
        self.sums.index_add_(0, sources.to(self.sums.device), losses.double())
        for source, count in zip(batch.sources, tokens, strict=True):
            self.tokens[source] += count

    def local_sums(self) -> list[float]:
        """Return the figures of this process that are added up over the processes, and reset them."""
        figures = [*self.sums.tolist(), *self.tokens]
        self.sums.zero_()
        self.tokens = [0] * len(self.names)
        return figures

    def read(self, sums: Sequence[float]) -> dict[str, float]:
        """Return the mean loss of each source that had supervised tokens.

        Args:
            sums: ``local_sums`` added up over the processes.
        """
        count = len(self.names)
        triples = zip(self.names, sums[:count], sums[count:], strict=True)
        return {f"loss/{name}": loss / tokens for name, loss, tokens in triples if tokens}


def supervised_by_sample(inputs: Mapping[str, Tensor]) -> list[int]:
    """Return the number of supervised tokens of each sample of a micro-batch.

    Args:
        inputs: ``labels`` (N, T); packed samples have ``position_ids`` (N, T) that restart at 0 with each of them. A
            sequence may end with padding, which has no labels.
    """
    supervised = inputs["labels"] != IGNORE_INDEX
    if "position_ids" not in inputs:
        return supervised[:, 1:].sum(dim=1).tolist()
    starts = inputs["position_ids"].flatten() == 0
    samples = torch.cumsum(starts, 0) - 1
    # the first label of a packed sample is ignored already
    counts = torch.zeros(int(starts.sum()), dtype=torch.int64).index_add_(0, samples, supervised.flatten().long())
    return [count for count in counts.tolist() if count]
