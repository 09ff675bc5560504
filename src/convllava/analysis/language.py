"""Cost of a causal language model: prefill of a prompt, and new tokens with a KV cache."""

import json
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from .counting import Cost, attention_macs


@dataclass(frozen=True)
class LanguageModelGeometry:
    """Sizes of a language model that counting needs.

    Attributes:
        embedding_parameters: Parameters of the token embedding.
        layer_parameters: Parameters of all layers and the final norm.
        layer_macs: MACs of all linear layers for one token.
        attention_width: Heads x head size, summed over the layers.
        kv_width: Elements in the KV cache per token.
        hidden_size: Width of the hidden states.
        widest: Largest output width of a linear layer, without the head.
        vocab_size: Size of the vocabulary.
        tied: Whether the head shares the weight of the embedding.
    """

    embedding_parameters: int
    layer_parameters: int
    layer_macs: int
    attention_width: int
    kv_width: int
    hidden_size: int
    widest: int
    vocab_size: int
    tied: bool

    @property
    def head_parameters(self) -> int:
        """Parameters of the head; 0 if it is tied to the embedding."""
        return 0 if self.tied else self.head_macs

    @property
    def head_macs(self) -> int:
        """MACs of the head for one position."""
        return self.hidden_size * self.vocab_size

    def prefill(self, tokens: int) -> list[Cost]:
        """Return the cost of prefill, with the logits of the last position."""
        alive = tokens * (3 * self.widest + 3 * self.hidden_size)
        attention = attention_macs(tokens, tokens, self.attention_width)
        return [
            Cost("embedding", self.embedding_parameters, 0, tokens * self.hidden_size),
            Cost("layers", self.layer_parameters, tokens * self.layer_macs, alive),
            Cost("attention", 0, attention, alive),
            Cost("head", self.head_parameters, self.head_macs, self.hidden_size + self.vocab_size),
        ]

    def decoding(self, prompt_tokens: int, new_tokens: int) -> Cost:
        """Return the cost of the new tokens after the first, which prefill gives."""
        steps = max(new_tokens - 1, 0)
        # each step attends to all positions before it and to itself
        keys = steps * (prompt_tokens + 1) + steps * (steps - 1) // 2
        macs = steps * (self.layer_macs + self.head_macs) + attention_macs(1, keys, self.attention_width)
        return Cost("new tokens", 0, macs, 3 * self.widest + 3 * self.hidden_size)

    def kv_cache_elements(self, tokens: int) -> int:
        """Return the number of elements in the KV cache."""
        return tokens * self.kv_width


def language_model_geometry(config: PreTrainedConfig, *, tied: bool | None = None) -> LanguageModelGeometry:
    """Return the sizes of a language model, read from the model built on the meta device.

    Args:
        config: Configuration of a dense causal language model that transformers knows.
        tied: Whether the head shares the weight of the embedding; None takes it from ``config``.

    Raises:
        ValueError: The model is not dense (experts, state spaces).
    """
    tied = bool(config.tie_word_embeddings) if tied is None else tied
    return _geometry(json.dumps(config.to_dict(), sort_keys=True, default=str), tied)


@lru_cache(maxsize=16)
def _geometry(config_json: str, tied: bool) -> LanguageModelGeometry:
    values = json.loads(config_json)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    _check_dense(model, config)
    embedding = model.get_input_embeddings()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    embedding_parameters = embedding.weight.numel()
    return LanguageModelGeometry(
        embedding_parameters=embedding_parameters,
        layer_parameters=sum(weight.numel() for weight in model.parameters()) - embedding_parameters,
        layer_macs=sum(module.weight.numel() for module in linears),
        attention_width=config.num_hidden_layers * config.num_attention_heads * head_size,
        kv_width=2 * config.num_hidden_layers * kv_heads * head_size,
        hidden_size=config.hidden_size,
        widest=max(module.out_features for module in linears),
        vocab_size=config.vocab_size,
        tied=tied,
    )


def _check_dense(model: nn.Module, config: PreTrainedConfig) -> None:
    """Check that every matrix belongs to a linear layer that each token passes once."""
    for path, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.dim() > 1 and not isinstance(module, (nn.Linear, nn.Embedding)):
                raise ValueError(
                    f"cannot count a language model of type {config.model_type!r}: {path}.{name} "
                    f"({type(module).__name__}) is neither a linear layer nor an embedding: use a dense model"
                )
