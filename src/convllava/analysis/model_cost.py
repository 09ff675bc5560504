"""Cost of one question about one image, counted from a configuration."""

from dataclasses import dataclass

from ..model import ConvLlavaConfig, num_image_tokens
from .counting import Cost, bytes_per_element, linear_parameters, total
from .language import LanguageModelGeometry, language_model_geometry
from .vision import encoder_cost

DEFAULT_TEXT_TOKENS = 64
"""Default number of text tokens: a short question in the vicuna_v1 format."""


@dataclass(frozen=True)
class ModelCost:
    """Cost of one question about one image.

    Attributes:
        height: Height of the image as the vision encoder gets it, in pixels.
        width: Width of the image as the vision encoder gets it, in pixels.
        visual_tokens: Tokens of the image.
        text_tokens: Text tokens of the prompt.
        new_tokens: Tokens of the answer.
        dtype: Precision of weights, activations and KV cache.
        vision: Costs of the parts of the vision encoder, in the order of execution.
        projector: Cost of the projector.
        language: Costs of the parts of prefill, the head included.
        decoding: Cost of the new tokens after the first.
        kv_cache_elements: Elements in the KV cache at the end of the answer.
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
        """Tokens of the prompt, visual and text."""
        return self.visual_tokens + self.text_tokens

    @property
    def first_token(self) -> Cost:
        """Cost up to the first token of the answer."""
        return total("to the first token", [*self.vision, self.projector, *self.language])

    @property
    def full_answer(self) -> Cost:
        """Cost of the answer from prefill to its last token."""
        return total("full answer", [self.first_token, self.decoding])

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, in bytes."""
        return self.full_answer.parameters * bytes_per_element(self.dtype)

    @property
    def activation_bytes(self) -> int:
        """Peak memory of activations, in bytes, with fused attention (no T x T scores in memory)."""
        return self.full_answer.activation_elements * bytes_per_element(self.dtype)

    @property
    def kv_cache_bytes(self) -> int:
        """Memory of the KV cache at the end of the answer, in bytes."""
        return self.kv_cache_elements * bytes_per_element(self.dtype)

    @property
    def memory_bytes(self) -> int:
        """Memory of weights, peak activations and KV cache, in bytes."""
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
    """Count the cost of a question about one image.

    Args:
        config: Configuration of the model; no weights are needed.
        height: Height of the image as the vision encoder gets it, in pixels.
        width: Width of the image as the vision encoder gets it, in pixels.
        text_tokens: Tokens of prompt format and question.
        new_tokens: Tokens of the answer; the first comes from prefill.
        dtype: Precision of weights, activations and KV cache.

    Raises:
        ValueError: The image is smaller than one visual token, a number is out of range, or the encoder or language
            model has an unknown architecture.
    """
    if text_tokens < 0 or new_tokens < 1:
        raise ValueError(
            f"text_tokens must be at least 0 and new_tokens at least 1, got {text_tokens} and {new_tokens}"
        )
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
    """Return the sizes of the model's language model."""
    return language_model_geometry(config.text_config, tied=config.tie_word_embeddings)


def projector_cost(inputs: int, outputs: int, tokens: int) -> Cost:
    """Return the cost of the two-layer projector (``mlp2x_gelu``)."""
    parameters = linear_parameters(inputs, outputs) + linear_parameters(outputs, outputs)
    macs = tokens * outputs * (inputs + outputs)
    return Cost("projector", parameters, macs, tokens * (inputs + 2 * outputs))
