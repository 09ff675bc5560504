"""Each rule changes logits as the processor of transformers does."""

from collections.abc import Sequence

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from convllava.inference import Request
from convllava.inference.logit_rules import NoRepeatedNgrams, RepetitionPenalty, Rule, rules_of
from convllava.inference.sampling import Sampler

VOCABULARY = 30


def tokens_and_logits(seed: int, length: int = 60) -> tuple[list[int], list[torch.Tensor]]:
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 5, (length,), generator=random).tolist()
    return tokens, list(torch.randn(length, VOCABULARY, generator=random))


def check_against(rule: Rule, processor: LogitsProcessorList, prompt: Sequence[int], seed: int) -> None:
    tokens, logits = tokens_and_logits(seed)
    before = list(prompt)
    for token, scores in zip(tokens, logits, strict=True):
        torch.testing.assert_close(rule(scores), processor(torch.tensor([before]), scores[None].clone())[0])
        rule.push(token)
        before.append(token)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_no_repeated_ngrams(size: int) -> None:
    processor = LogitsProcessorList([NoRepeatNGramLogitsProcessor(size)])
    check_against(NoRepeatedNgrams(size, None, [1, 2, 1]), processor, [1, 2, 1], size)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_repetition_penalty(penalty: float) -> None:
    processor = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty)])
    check_against(RepetitionPenalty(penalty, [7, 7, 29]), processor, [7, 7, 29], 1)


@pytest.mark.parametrize(("size", "window"), [(1, 4), (2, 10), (3, 20)])
def test_a_window_forgets_what_is_before_it(size: int, window: int) -> None:
    tokens, _ = tokens_and_logits(5, 200)
    rule = NoRepeatedNgrams(size, window, [])
    for number, token in enumerate(tokens):
        known = tokens[:number]
        starts = range(max(0, number - window), number - size + 1)
        prefix = known[number - size + 1 :]
        expected = {known[start + size - 1] for start in starts if known[start : start + size - 1] == prefix}
        assert set(rule.forbidden()) == expected
        rule.push(token)


@pytest.mark.parametrize(
    ("options", "warper"),
    [
        ({"top_k": 3}, TopKLogitsWarper(3)),
        ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
        ({"min_p": 0.2}, MinPLogitsWarper(0.2)),
    ],
)
def test_sampling_draws_from_the_distribution_of_transformers(
    options: dict[str, float], warper: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7), warper])
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: drawn.append(p) or torch.tensor([0]))
    for scores in tokens_and_logits(9)[1]:
        Sampler(Request.of_question("Why?", temperature=0.7, **options))(scores)
        expected = warpers(torch.tensor([[1]]), scores[None].clone()).softmax(dim=-1)[0]
        torch.testing.assert_close(drawn[-1] / drawn[-1].sum(), expected)


def test_nothing_is_done_unless_asked() -> None:
    assert rules_of(Request.of_question("Why?", top_k=5), GenerationConfig(), [1, 2], {2}) == []
