"""Give a nano model whole words beside its characters: the words that questions, captions and answers are made of.

python recipes/nano/teach_words.py runs/nano/6_pretrain_longer runs/nano/6_words

A word of the list is one token where it stands by itself; all other text stays one token a character, because a model
of this size learns to read unseen words by their letters. Questions get about four times shorter. The list is drawn
from the training split alone. New rows of the embedding start as the mean of their characters' rows.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from folders import read_folders

from convllava import load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration
from convllava.synthetic import SyntheticDataset

WORD = r" ?[A-Za-z]+"
SAMPLES_PER_SOURCE = 3000
LEAST_SHARE = 0.002
"""Words of fewer samples than this are left to their characters: names and goods, not the language of questions."""

# Kind, its options, and whether its answers are language (true) or text read off the image.
SOURCES: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("line", {}, False),
    ("scene", {"sizes": [[128, 128]]}, True),
    ("grounding", {"sizes": [[128, 128]]}, True),
    ("document", {}, False),
)


def main() -> None:
    """Read the two folders from the command line and convert."""
    trained, taught = read_folders(__doc__, "taught")
    model, processor = load_pretrained(trained, dtype=torch.float32, device="cpu")
    words = sorted({word for kind, options, answers in SOURCES for word in frequent_words(kind, options, answers)})
    grow_embedding(model, [processor.tokenizer.encode(word) for word in words])
    model.save_pretrained(taught)
    processor.save_pretrained(taught)
    grow_vocabulary(taught / "tokenizer.json", words, pattern=WORD)
    print(f"{len(words)} words; the vocabulary has {model.config.text_config.vocab_size} tokens")


def frequent_words(kind: str, options: dict[str, Any], answers: bool) -> list[str]:
    """Return the words, with the space before them, that many samples of a kind have."""
    samples = SyntheticDataset(kind, count=SAMPLES_PER_SOURCE, seed=9, split="train", **options)
    counts = Counter(word for sample in samples for word in set(words_of(sample.messages, answers)))
    return [word for word, count in counts.items() if count >= LEAST_SHARE * SAMPLES_PER_SOURCE]


def words_of(messages: list[dict[str, Any]], answers: bool) -> Iterator[str]:
    """Yield the words of several letters in questions and, if wanted, in answers."""
    for message in messages:
        if message["role"] == "user" or answers:
            for part in message["content"]:
                yield from (word for word in re.findall(WORD, part.get("text", "")) if len(word) > 1)


def grow_embedding(model: ConvLlavaForConditionalGeneration, spellings: list[list[int]]) -> None:
    """Add a row for each word, in place: the mean of the rows of its characters."""
    table = model.get_input_embeddings().weight.detach().clone()
    rows = torch.stack([table[spelling].mean(dim=0) for spelling in spellings])
    model.resize_token_embeddings(len(table) + len(rows), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[len(table) :] = rows


def grow_vocabulary(path: Path, words: list[str], pattern: str) -> None:
    """Let the vocabulary of a ``tokenizer.json`` go on with ``words``, which the pattern cuts out of a text."""
    tokenizer = json.loads(path.read_text())
    model = tokenizer["model"]
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    model["vocab"] = vocabulary | {word: len(vocabulary) + index for index, word in enumerate(words)}
    model["ignore_merges"] = True  # a word of the vocabulary is one token, though no merges lead to it
    tokenizer["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
