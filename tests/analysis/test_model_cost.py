"""Counts from a configuration against torch's flop counter and the tensors of real forward passes."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig

from convllava.analysis import ModelCost, model_cost
from convllava.analysis.language import language_model_geometry
from convllava.analysis.vision import convnext_cost
from convllava.model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaVisionConfig, nano, preset

TOLERANCE = 0.005
SHAPES = [(64, 64), (64, 320), (200, 130), (384, 256)]

TINY = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": False},
    "gpt_neox": {},
}


def tiny(model_type: str = "llama") -> ConvLlavaConfig:
    text_config = {
        "model_type": model_type,
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        **TINY[model_type],
    }
    vision_config = ConvLlavaVisionConfig(depths=[1, 2, 1, 2, 1], hidden_sizes=[8, 12, 16, 24, 32], kernel_size=5)
    return ConvLlavaConfig(vision_config=vision_config, text_config=text_config)


def build(config: ConvLlavaConfig, device: str = "cpu") -> ConvLlavaForConditionalGeneration:
    # the counter does not know the CPU's fused attention: eager shows it the same products one by one
    with torch.device(device):
        return ConvLlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()


def inputs(config: ConvLlavaConfig, height: int, width: int, text: int, device: str = "cpu") -> dict[str, Any]:
    tokens = (height // config.output_stride) * (width // config.output_stride)
    input_ids = torch.tensor([[config.image_token_id] * tokens + [1] * text], device=device)
    return {"input_ids": input_ids, "pixel_values": torch.zeros(1, 3, height, width, device=device)}


@torch.no_grad()
def measured(model: ConvLlavaForConditionalGeneration, height: int, width: int, text: int) -> dict[str, int]:
    """FLOPs of a real prefill by module, as torch counts them."""
    with FlopCounterMode(display=False, depth=10) as counter:
        model(**inputs(model.config, height, width, text), logits_to_keep=1, use_cache=True)
    return {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}


def by_module(cost: ModelCost) -> dict[str, int]:
    """Our counts under the names of the modules."""
    root = "ConvLlavaForConditionalGeneration"
    tower = f"{root}.model.vision_tower"
    stages = {f"{tower}.encoder.stages.{i}": part.flops for i, part in enumerate(cost.vision[1:])}
    embedding, layers, attention, head = cost.language
    return stages | {
        root: cost.first_token.flops,
        f"{tower}.embeddings": cost.vision[0].flops,
        f"{root}.model.multi_modal_projector": cost.projector.flops,
        f"{root}.model.language_model": embedding.flops + layers.flops + attention.flops,
        f"{root}.lm_head": head.flops,
    }


@pytest.mark.parametrize("model_type", TINY)
def test_flops_of_every_module_equal_the_flop_counter(model_type: str) -> None:
    config = tiny(model_type)
    model = build(config)
    for height, width in SHAPES:
        counted = measured(model, height, width, text=17)
        for name, flops in by_module(model_cost(config, height, width, text_tokens=17)).items():
            assert flops == pytest.approx(counted[name], rel=TOLERANCE), name


def test_flops_of_nano_equal_the_flop_counter() -> None:
    config = nano(stages=5)
    model = build(config)
    for height, width in [(128, 192), (448, 320)]:
        counted = measured(model, height, width, text=30)["Global"]
        assert model_cost(config, height, width, text_tokens=30).first_token.flops == pytest.approx(
            counted, rel=TOLERANCE
        )


@torch.no_grad()
@pytest.mark.parametrize("resolution", [768, 1536])
def test_flops_of_the_published_size_equal_the_flop_counter(resolution: int) -> None:
    config = preset(f"convllava-7b-{resolution}")
    model = build(config, "meta")
    cost = model_cost(config, resolution, resolution)
    with FlopCounterMode(display=False) as counter:
        model.model.vision_tower(torch.zeros(1, 3, resolution, resolution, device="meta"))
    assert sum(part.flops for part in cost.vision) == pytest.approx(counter.get_total_flops(), rel=1e-9)
    with FlopCounterMode(display=False) as counter:
        length = cost.prompt_tokens
        embeddings, mask = (torch.zeros(1, *shape, device="meta") for shape in [(length, 4096), (1, length, length)])
        model.model.language_model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
    embedding, layers, attention, _ = cost.language
    assert layers.flops + attention.flops == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)
    assert embedding.macs == 0


@torch.no_grad()
def test_decoding_equals_the_flop_counter() -> None:
    config = tiny()
    model = build(config)
    cost = model_cost(config, 128, 128, text_tokens=9, new_tokens=6)
    data = inputs(config, 128, 128, 9)
    cache = model(**data, logits_to_keep=1, use_cache=True).past_key_values
    with FlopCounterMode(display=False) as counter:
        for _ in range(5):
            model(input_ids=torch.tensor([[3]]), past_key_values=cache, use_cache=True)
    assert cost.decoding.flops == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert cost.kv_cache_elements == kept


@pytest.mark.parametrize("name", ["convllava-7b-768", "convnext-l-four-stage-7b-768"])
def test_parameters_equal_those_of_the_model(name: str) -> None:
    config = preset(name)
    model = build(config, "meta")
    cost = model_cost(config, 768, 768)
    assert cost.full_answer.parameters == sum(weight.numel() for weight in model.parameters())
    for part, stage in zip(cost.vision[1:], model.model.vision_tower.encoder.stages, strict=True):
        assert part.parameters == sum(weight.numel() for weight in stage.parameters())


@pytest.mark.parametrize("model_type", TINY)
def test_parameters_of_any_language_model(model_type: str) -> None:
    config = tiny(model_type)
    model = build(config, "meta")
    assert model_cost(config, 64, 64).full_answer.parameters == sum(weight.numel() for weight in model.parameters())


def test_clip_encoder() -> None:
    vision_config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=56, patch_size=14
    )
    config = ConvLlavaConfig(vision_config=vision_config, text_config=tiny().text_config, resolution=56)
    model = build(config)
    cost = model_cost(config, 56, 56, text_tokens=5)
    assert cost.visual_tokens == 16
    assert cost.first_token.flops == pytest.approx(measured(model, 56, 56, 5)["Global"], rel=TOLERANCE)
    assert cost.full_answer.parameters == sum(weight.numel() for weight in model.parameters())


class LiveTensors(TorchDispatchMode):
    """Adds up the memory of all live tensors that operations have made."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {value.untyped_storage()._cdata for value in tree_iter((args, kwargs)) if torch.is_tensor(value)}
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if torch.is_tensor(value) and value.untyped_storage()._cdata not in self._known | given:
                self._watch(value.untyped_storage())
        return result

    def _watch(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def forget() -> None:
            self._known.discard(key)
            self.live -= size

        weakref.finalize(storage, forget)


@contextmanager
def peak_bytes(*given: torch.Tensor) -> Iterator[LiveTensors]:
    with torch.no_grad(), LiveTensors() as tracker:
        yield tracker
    tracker.peak += sum(tensor.untyped_storage().nbytes() for tensor in given)


@pytest.mark.parametrize("depths", [[1, 1, 1, 1, 1], [2, 2, 3, 2, 2]])
@pytest.mark.parametrize("shape", [(128, 192), (320, 64)])
def test_encoder_activations_equal_the_tensors_alive(depths: list[int], shape: tuple[int, int]) -> None:
    config = tiny()
    config.vision_config = ConvLlavaVisionConfig(depths=depths, hidden_sizes=[16, 24, 32, 48, 64])
    model = build(config)
    pixel_values = torch.zeros(1, 3, *shape)
    with peak_bytes(pixel_values) as tracker:
        model.get_image_features(pixel_values)
    worst = max(part.activation_elements for part in model_cost(config, *shape).vision)
    assert 4 * worst == pytest.approx(tracker.peak, rel=0.02)


def test_language_model_activations_are_near_the_tensors_alive() -> None:
    config = nano(stages=5)
    model = ConvLlavaForConditionalGeneration(config).eval()
    geometry = language_model_geometry(config.text_config)
    embeddings = torch.zeros(1, 400, config.text_config.hidden_size)
    with peak_bytes(embeddings) as tracker:
        model.model.language_model(inputs_embeds=embeddings, use_cache=True)
    estimate = max(part.activation_elements for part in geometry.prefill(400)) + geometry.kv_cache_elements(400)
    assert 4 * estimate == pytest.approx(tracker.peak, rel=0.2)


def test_counts_of_the_published_encoder() -> None:
    # 34.4 GMACs and 197.8 M parameters with classifier head at 224: Liu et al. 2022, table 9
    four = convnext_cost(ConvLlavaVisionConfig(depths=[3, 3, 27, 3], hidden_sizes=[192, 384, 768, 1536]), 224, 224)
    head = 1536 * 1000 + 1000 + 2 * 1536
    assert round(sum(part.macs for part in four) / 1e9, 1) == 34.4
    assert round((sum(part.parameters for part in four) + head) / 1e6, 1) == 197.8


def test_the_encoder_is_linear_in_pixels_and_indifferent_to_shape() -> None:
    config = preset("convllava-7b-1536").vision_config
    small, large, long = (
        sum(part.macs for part in convnext_cost(config, *shape)) for shape in [(768, 768), (1536, 1536), (384, 6144)]
    )
    assert large == 4 * small == long


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"height": 63, "width": 640}, "height 63 and width 640"),
        ({"height": 64, "width": 64, "new_tokens": 0}, "got 64 and 0"),
        ({"height": 64, "width": 64, "text_tokens": -1}, "got -1 and 1"),
        ({"height": 64, "width": 64, "dtype": "int4"}, "'int4'"),
    ],
)
def test_wrong_values(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model_cost(tiny(), **values)


def test_a_language_model_with_experts_is_refused() -> None:
    text_config = {
        "model_type": "mixtral",
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
    }
    config = ConvLlavaConfig(text_config=text_config)
    with pytest.raises(ValueError, match="'mixtral'"):
        model_cost(config, 64, 64)
