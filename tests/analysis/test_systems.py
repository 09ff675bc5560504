"""The published systems: tokens of the paper's tables, counts held to the flop counter where a model can be built."""

import csv
import xml.etree.ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel

from convllava.analysis.figure import figure_2_points, write_figure_2
from convllava.analysis.systems import (
    CLIP_L_336,
    FUYU_8B,
    QWEN_7B,
    TABLE_1,
    claims,
    convllava,
    convnext_l,
    llava_1_5,
    llava_next,
    mini_gemini_hd,
    otter_hd,
    qwen_vl,
    table_1,
    vit_l,
)
from convllava.analysis.vision import vit_cost


def test_tokens_of_table_1_are_exact() -> None:
    assert len(TABLE_1) == 6
    for system in table_1():
        assert system.visual_tokens == system.paper_tokens, system.name


def test_clip_equals_the_flop_counter_and_the_parameters() -> None:
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    with torch.device("meta"):
        model = CLIPVisionModel._from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 336, 336, device="meta"))
    parts = vit_cost(CLIP_L_336, 336, 336)
    assert sum(part.flops for part in parts) == counter.get_total_flops()
    assert sum(part.parameters for part in parts) == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("values", [FUYU_8B, QWEN_7B])
def test_language_models_have_the_parameters_of_the_real_ones(values: dict[str, object]) -> None:
    options = dict(values)
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    system = otter_hd() if values is FUYU_8B else qwen_vl()
    counted = sum(part.parameters for part in system.language.prefill(1))
    assert counted == sum(weight.numel() for weight in model.parameters())


def test_qwen_resampler_equals_a_module() -> None:
    """The resampler written out as a module, on the meta device."""

    class Resampler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.zeros(256, 4096))
            self.kv_proj = nn.Linear(1664, 4096, bias=False)
            self.q, self.k, self.v, self.out = (nn.Linear(4096, 4096) for _ in range(4))
            self.norms = nn.ModuleList(nn.LayerNorm(4096) for _ in range(3))
            self.proj = nn.Parameter(torch.zeros(4096, 4096))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            features = self.kv_proj(features)
            q, k, v = self.q(self.query), self.k(features), self.v(features)
            heads = [x.unflatten(-1, (32, 128)).transpose(0, 1) for x in (q, k, v)]
            mixed = (heads[0] @ heads[1].mT).softmax(-1) @ heads[2]
            return self.out(mixed.transpose(0, 1).flatten(1)) @ self.proj

    with torch.device("meta"):
        module = Resampler()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1024, 1664, device="meta"))
    part = qwen_vl().encoder[-1]
    assert part.flops == counter.get_total_flops()
    assert part.parameters == sum(weight.numel() for weight in module.parameters())


def test_mini_gemini_mining_equals_its_products() -> None:
    """Three projections and two products of one query with 64 features, for 2304 local and 576 global tokens."""
    width, features = 1024, 192 + 384 + 768 + 1536
    inside = {2304: 64, 576: 64}  # 384 x 384 features under 48 x 48 tokens; 192 x 192 under 24 x 24
    macs = 0
    for tokens, patch in inside.items():
        macs += tokens * width**2 + 2 * tokens * patch * features * width + 2 * tokens * patch * width
    (part,) = [part for part in mini_gemini_hd().encoder if part.name == "patch info mining"]
    assert part.macs == macs


def test_designs_differ_as_published() -> None:
    assert llava_next().vision.parameters == llava_1_5().vision.parameters
    assert llava_next().encoder[1].macs == 5 * llava_1_5().encoder[1].macs
    assert otter_hd().vision.parameters == 2700 * 4096 + 4096
    assert vit_l(1536).visual_tokens == (1536 // 14) ** 2


def test_check_columns_of_table_1() -> None:
    """Cropping, extra encoder, complexity and aspect ratio as the paper's Table 1 prints them."""
    found = {
        (system.name, system.resolution): (
            system.design.cropping,
            system.design.extra_encoder,
            system.design.complexity,
            system.design.aspect_ratios,
        )
        for system in table_1(others=False)
    }
    assert found == {
        ("LLaVA-1.5", 336): (False, False, "quadratic", "fixed"),
        ("OtterHD", 1024): (False, False, "quadratic", "any"),
        ("LLaVA-NeXT", 672): (True, False, "linear", "listed"),
        ("MiniGemini-HD", 1536): (True, True, "linear", "listed"),
        ("ConvLLaVA", 1024): (False, False, "linear", "any"),
        ("ConvLLaVA", 1536): (False, False, "linear", "any"),
    }


def test_ratios_of_the_readme_of_the_count() -> None:
    assert convllava(1536).flops() / 1e12 == pytest.approx(11.44, abs=0.01)
    assert convnext_l(1536).flops() / convllava(1536).flops() == pytest.approx(3.14, abs=0.01)
    assert vit_l(768).flops() / convnext_l(768).flops() == pytest.approx(5.31, abs=0.01)
    assert vit_l(1536).flops() / convnext_l(1536).flops() == pytest.approx(6.94, abs=0.01)


def test_claims_name_the_paper_and_the_count() -> None:
    found = {claim.text.split(",")[0]: claim for claim in claims()}
    assert found["ViT-L to ConvNeXt-L"].paper == "almost 8x" and found["ViT-L to ConvNeXt-L"].counted.endswith("6.9x")
    assert found["parameters of five stages"].counted == "669.2 M"
    assert found["visual tokens of five stages at 768"].counted == "144, 256, 576"


def test_figure_2_files(tmp_path: Path) -> None:
    table, png, svg = write_figure_2(tmp_path / "new")
    with table.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(figure_2_points()) == 12
    assert [row["visual_tokens"] for row in rows if row["resolution"] == "1536"] == ["11881", "2304", "576"]
    with Image.open(png) as image:
        assert min(image.size) > 600
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
