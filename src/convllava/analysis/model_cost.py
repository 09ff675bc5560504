"""What one question about one image costs, from a configuration alone."""

from dataclasses import dataclass

from ..model import ConvLlavaConfig, num_image_tokens
from .counting import Cost, bytes_per_element, linear_parameters, total
from .language import LanguageModelGeometry, language_model_geometry
from .vision import encoder_cost

DEFAULT_TEXT_TOKENS = 64
"""Tokens of prompt format and question when nothing is said: a short question in the vicuna_v1 format."""


@dataclass(frozen=True)
class ModelCost:
    """The answer to: what does this image cost this model?

    Attributes:
        height, width: Of the image as the vision encoder sees it, in pixels.
        visual_tokens: Positions it takes in the language model.
        text_tokens: The rest of the prompt.
        new_tokens: Of the answer.
        dtype: Of weights, activations and cache.
        vision: Parts of the vision encoder, as they run.
        projector: Between the two.
        language: Parts of the prefill, head included.
        decoding: New tokens after the first.
        kv_cache_elements: Numbers in the KV cache at the end of the answer.
    """

    height: int
    width: int
    visual_tokens: int
    text_tokens: int
    new_tokens: int
    dtype: str
    vision: tuple[Cost, ...]
    projector: Cost
    language: tuple[Cost, ...]
    decoding: Cost
    kv_cache_elements: int

    @property
    def prompt_tokens(self) -> int:
        """Visual and text tokens together."""
        return self.visual_tokens + self.text_tokens

    @property
    def first_token(self) -> Cost:
        """All that happens before the first token of the answer."""
        return total("to the first token", [*self.vision, self.projector, *self.language])

    @property
    def whole(self) -> Cost:
        """The whole answer."""
        return total("whole answer", [self.first_token, self.decoding])

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return self.whole.parameters * bytes_per_element(self.dtype)

    @property
    def activation_bytes(self) -> int:
        """Memory of the activations at the worst moment; attention by a fused kernel, without T x T scores."""
        return self.whole.activation_elements * bytes_per_element(self.dtype)

    @property
    def kv_cache_bytes(self) -> int:
        """Memory of the KV cache at the end of the answer."""
        return self.kv_cache_elements * bytes_per_element(self.dtype)

    @property
    def memory_bytes(self) -> int:
        """Weights, worst activations and KV cache together."""
        return self.weight_bytes + self.activation_bytes + self.kv_cache_bytes


def model_cost(
    config: ConvLlavaConfig,
    height: int,
    width: int,
    *,
    text_tokens: int = DEFAULT_TEXT_TOKENS,
    new_tokens: int = 1,
    dtype: str = "bfloat16",
) -> ModelCost:
    """Count what a question about one image costs.

    Args:
        config: Of the model; no weights are needed.
        height, width: Of the image as the vision encoder sees it, in pixels.
        text_tokens: Of prompt format and question.
        new_tokens: Of the answer; the first comes out of the prefill.
        dtype: Of weights, activations and cache.

    Raises:
        ValueError: The image is smaller than one cell, a number is out of range, or the model is of a kind that
            is not known.
    """
    if text_tokens < 0 or new_tokens < 1:
        raise ValueError(f"text tokens are at least 0 and new tokens at least 1, got {text_tokens} and {new_tokens}")
    bytes_per_element(dtype)
    language = geometry_of(config)
    vision = encoder_cost(config.vision_config, height, width)
    tokens = num_image_tokens(height, width, config.output_stride)
    prompt = tokens + text_tokens
    return ModelCost(
        height=height,
        width=width,
        visual_tokens=tokens,
        text_tokens=text_tokens,
        new_tokens=new_tokens,
        dtype=dtype,
        vision=tuple(vision),
        projector=projector_cost(config.vision_config.hidden_size, language.hidden_size, tokens),
        language=tuple(language.prefill(prompt)),
        decoding=language.decoding(prompt, new_tokens),
        kv_cache_elements=language.kv_cache_elements(prompt + new_tokens - 1),
    )


def geometry_of(config: ConvLlavaConfig) -> LanguageModelGeometry:
    """Return the language model's sizes as this model uses it (head tied or not)."""
    return language_model_geometry(config.text_config, tied=config.tie_word_embeddings)


def projector_cost(inputs: int, outputs: int, tokens: int) -> Cost:
    """Return the cost of the two-layer projector (``mlp2x_gelu``)."""
    parameters = linear_parameters(inputs, outputs) + linear_parameters(outputs, outputs)
    macs = tokens * outputs * (inputs + outputs)
    return Cost("projector", parameters, macs, tokens * (inputs + 2 * outputs))
