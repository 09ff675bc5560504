"""Real models small enough for tests, built with the package's public classes."""

from typing import Any

import torch

from convllava.model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaProcessor,
    ConvLlavaVisionConfig,
    build_nano_processor,
)


def tiny_model(
    seed: int = 0, stages: int = 5, tie_word_embeddings: bool = False, **values: Any
) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Return a random model of about 100 thousand parameters, in evaluation mode, and the nano processor.

    The weights are far enough from 0 that logits and answers differ from image to image.

    Args:
        seed: Seed of the weights.
        stages: Number of stages of the vision encoder.
        tie_word_embeddings: Whether the head shares the embeddings' weights.
        values: Further arguments of ``ConvLlavaConfig``.
    """
    processor = build_nano_processor(output_stride=4 * 2 ** (stages - 1))
    tokenizer = processor.tokenizer
    config = ConvLlavaConfig(
        vision_config=ConvLlavaVisionConfig(
            depths=[1] * stages,
            hidden_sizes=[8, 8, 16, 16, 32][:stages],
            layer_scale_init_value=0.1,
            initializer_range=0.1,
        ),
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": tie_word_embeddings,
            "initializer_range": 0.2,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_aspect_ratio="native",
        resolution=None,
        prompt_format="tokenizer",
        **values,
    )
    torch.manual_seed(seed)
    return ConvLlavaForConditionalGeneration(config).eval(), processor
