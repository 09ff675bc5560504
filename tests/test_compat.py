"""Private names of other libraries are still there: a failure says which one was renamed.

Each check uses a name as ``compat`` does, at toy size, and compares with a public computation where there is one.
"""

import asyncio
import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from transformers import ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from convllava import compat
from convllava.model import (
    ConvLlavaForConditionalGeneration,
    ConvLlavaVisionConfig,
    ConvLlavaVisionModel,
    build_nano_processor,
    nano,
)


def names(library: str, name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Let a check fail with the name that its library renamed."""

    def decorate(check: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(check)
        def run() -> None:
            try:
                check()
            except (AttributeError, ImportError, TypeError, RuntimeError, AssertionError) as error:
                pytest.fail(f"{library} renamed or changed {name}: adapt convllava/compat.py ({error})")

        return run

    return decorate


@names("torch", "Module._apply or Module._load_from_state_dict")
def test_reports_weight_changes() -> None:
    class Module(compat.ReportsWeightChanges, nn.Linear):
        reports = 0

        def weights_will_change(self) -> None:
            self.reports += 1

    module = Module(2, 2)
    around = nn.Sequential(module)
    around.to(torch.float64)
    assert module.reports > 0, "no report of a cast"
    assert module.weight.dtype == torch.float64
    before = module.reports
    around.load_state_dict(copy.deepcopy(around.state_dict()))
    assert module.reports > before, "no report of loaded weights"


@names("transformers", "PreTrainedModel._from_config")
def test_from_config() -> None:
    config = ConvLlavaVisionConfig(depths=[1], hidden_sizes=[4], dtype="bfloat16")
    assert compat.from_config(ConvLlavaVisionModel, config).dtype == torch.bfloat16


@names("transformers", "ProcessorMixin._merge_kwargs")
def test_merge_processor_kwargs() -> None:
    assert hasattr(ProcessorMixin, "_merge_kwargs")
    processor = build_nano_processor()
    merged = compat.merge_processor_kwargs(
        processor, ProcessingKwargs, processor.tokenizer.init_kwargs, padding=True, return_tensors="pt"
    )
    assert merged["text_kwargs"]["padding"] is True
    assert "images_kwargs" in merged


@names("transformers", "utils.chat_template_utils.render_jinja_template")
def test_render_chat_template() -> None:
    template = "{% for m in messages %}[{% generation %}{{ m['content'] }}{% endgeneration %}]{{ end }}{% endfor %}"
    texts, spans = compat.render_chat_template([[{"role": "assistant", "content": "yes"}]], template, True, end="!")
    assert texts == ["[yes]!"]
    assert [tuple(span) for span in spans[0]] == [(1, 4)]


@names("torch", "ops.mkldnn._is_mkldnn_bf16_supported or _is_mkldnn_fp16_supported")
def test_mkldnn_supports() -> None:
    assert isinstance(compat.mkldnn_supports(torch.bfloat16), bool)
    assert isinstance(compat.mkldnn_supports(torch.float16), bool)


@names("torch", "cpu._is_amx_tile_supported, cpu._is_avx512_bf16_supported or cpu._is_vnni_supported")
def test_processor_features() -> None:
    assert isinstance(compat.cpu_multiplies_bfloat16(), bool)
    assert isinstance(compat.cpu_has_vnni(), bool)


@names("torch", "ops.aten.gelu_")
def test_gelu_in_place() -> None:
    values = torch.randn(5)
    expected = F.gelu(values)
    assert compat.gelu_in_place(values) is values
    assert torch.equal(values, expected)


@names("torch", "ops.aten.convolution_backward")
def test_depthwise_backward() -> None:
    features, weight, bias = (torch.randn(shape).requires_grad_() for shape in ((2, 3, 4, 5), (3, 1, 3, 3), (3,)))
    output = F.conv2d(features, weight, bias, padding=1, groups=3)
    gradient = torch.randn_like(output)
    expected = torch.autograd.grad(output, (features, weight, bias), gradient)
    found = compat.depthwise_backward(gradient, features.detach(), weight.detach(), (True, True, True))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert compat.depthwise_backward(gradient, features.detach(), weight.detach(), (True, False, False))[1] is None


def _linear() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    values, weight, bias = torch.randn(4, 8), torch.randn(6, 8), torch.randn(6)
    return values, weight, bias, F.linear(values, weight, bias)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
@torch.no_grad()
@names("torch", "ops.mkl._mkl_reorder_linear_weight or ops.mkl._mkl_linear")
def test_mkl_linear() -> None:
    operations = compat.mkl_linear()
    assert operations is not None, "torch has MKL but not its linear layer"
    pack, linear = operations
    values, weight, bias, expected = _linear()
    torch.testing.assert_close(linear(values, pack(weight, 4), weight, bias, 4), expected)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@torch.no_grad()
@names("torch", "ops.mkldnn._reorder_linear_weight or ops.mkldnn._linear_pointwise")
def test_onednn_linear() -> None:
    pack, linear = compat.onednn_linear()
    values, weight, bias, expected = _linear()
    torch.testing.assert_close(linear(values, pack(weight, 4), bias, "gelu", [], "none"), F.gelu(expected))
    added: Any = linear.binary(values, torch.ones(4, 6), pack(weight, 4), bias, "add")
    torch.testing.assert_close(added, expected + 1)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@torch.no_grad()
@names("torch", "ops.onednn.qlinear_prepack or ops.onednn.qlinear_pointwise")
def test_onednn_int8_linear() -> None:
    pack, linear = compat.onednn_int8_linear()
    values = torch.randint(0, 9, (4, 8), dtype=torch.uint8)
    weight = torch.randint(-9, 9, (6, 8), dtype=torch.int8)
    ones, zeros = torch.ones(6), torch.zeros(6, dtype=torch.int64)
    found = linear(
        values, 1.0, 0, pack(weight, [4, 8]), ones, zeros, torch.zeros(6), 1.0, 0, torch.float32, "none", [], ""
    )
    torch.testing.assert_close(found, values.float() @ weight.float().T)


@names("transformers", "PreTrainedModel._init_weights or the mark _is_hf_initialized")
def test_initialize_weights() -> None:
    with torch.device("meta"):
        model = ConvLlavaForConditionalGeneration(nano())
    linear = model.model.multi_modal_projector.to_empty(device="cpu").linear_1
    with torch.no_grad():
        linear.weight.fill_(torch.nan)
    compat.initialize_weights(model, linear)
    assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.1)
    assert not linear.bias.any()


@names("accelerate", "GradientState._set_sync_gradients")
def test_set_gradient_sync() -> None:
    accelerator = Accelerator(cpu=True)
    for is_last in (False, True):
        compat.set_gradient_sync(accelerator, is_last)
        assert accelerator.sync_gradients == is_last


@names("uvicorn", "H11Protocol or one of its attributes and methods")
def test_uvicorn_h11_protocol() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    protocol_class = compat.uvicorn_h11_protocol()
    for method in ("connection_made", "connection_lost", "handle_events", "on_response_complete"):
        assert callable(getattr(protocol_class, method))
    config = uvicorn.Config(lambda scope: None, lifespan="off", ws="none")
    config.load()
    loop = asyncio.new_event_loop()
    protocol = protocol_class(config, uvicorn.server.ServerState(), {}, loop)
    loop.close()
    assert protocol.loop is loop and protocol.conn.their_state is not None and hasattr(protocol, "transport")
