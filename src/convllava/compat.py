"""Private names borrowed from other libraries, behind one door.

Each function or class below borrows one private name, or a few of one operation. Its docstring gives the version that
it was checked with, the reason, and the public alternative that would replace it. ``tests/test_compat.py`` fails with
the name of whatever was renamed.

Libraries are imported inside the functions: this file costs nothing at start-up, and an exported checkpoint carries
only those functions that its model code names.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import PreTrainedModel


class ReportsWeightChanges:
    """Mixin for a ``torch.nn.Module`` that calls :meth:`weights_will_change` before its tensors are replaced.

    Borrows ``Module._apply`` and ``Module._load_from_state_dict`` (torch 2.13), through which a cast, a move and
    loaded weights also reach a module from the model around it. ``torch.nn.RNN`` overrides ``_apply`` for the same
    purpose. Awaited: a public hook for moves, like ``Module.register_load_state_dict_pre_hook`` for loading.
    """

    def weights_will_change(self) -> None:
        """Respond to the change; called before it."""
        raise NotImplementedError

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.weights_will_change()
        return super()._apply(*args, **kwargs)  # type: ignore[misc]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.weights_will_change()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]


def from_config(model_class: Any, config: Any) -> Any:
    """Return a new model of a given class in the dtype and with the attention implementation of its config.

    Borrows ``PreTrainedModel._from_config`` (transformers 5.16 to 5.23). Awaited: ``AutoModel.from_config`` without
    registration, or the same without the underscore.
    """
    return model_class._from_config(config)


def merge_processor_kwargs(
    processor: Any, valid_kwargs: Any, tokenizer_init_kwargs: dict[str, Any], **kwargs: Any
) -> dict[str, Any]:
    """Sort the options of a processor's call into ``text_kwargs``, ``images_kwargs`` and others.

    Borrows ``ProcessorMixin._merge_kwargs`` (transformers 5.16 to 5.23), which gives a processor of our own the
    defaults and the precedence of all others. Awaited: a public method of the same purpose.
    """
    merged: dict[str, Any] = processor._merge_kwargs(
        valid_kwargs, tokenizer_init_kwargs=tokenizer_init_kwargs, **kwargs
    )
    return merged


def render_chat_template(
    conversations: list[Any], chat_template: str, with_spans: bool, **variables: Any
) -> tuple[list[str], list[list[tuple[int, int]]]]:
    """Render dialogues; with ``with_spans`` also return the character spans inside ``{% generation %}`` marks.

    Borrows ``transformers.utils.chat_template_utils.render_jinja_template`` (5.16 to 5.23), whose sandbox and
    ``{% generation %}`` extension are those of ``apply_chat_template``. Awaited: character spans from
    ``apply_chat_template`` itself, which returns a mask over tokens only.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        conversations, chat_template=chat_template, return_assistant_tokens_mask=with_spans, **variables
    )
    return texts, spans


def mkldnn_supports(dtype: "torch.dtype") -> bool:
    """Return whether this processor has instructions for bfloat16 or float16 and PyTorch uses them.

    Borrows ``torch.ops.mkldnn._is_mkldnn_{bf16,fp16}_supported`` (torch 2.13). Awaited: a public query in
    ``torch.backends.mkldnn``.
    """
    import torch

    query = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
    return torch.backends.mkldnn.is_available() and bool(getattr(torch.ops.mkldnn, query)())


def cpu_multiplies_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 matrices (AMX or AVX-512).

    Borrows ``torch.cpu._is_amx_tile_supported`` and ``torch.cpu._is_avx512_bf16_supported`` (torch 2.13). Awaited:
    the same without underscores.
    """
    import torch

    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def cpu_has_vnni() -> bool:
    """Return whether this processor sums products of 8-bit integers without overflow.

    Borrows ``torch.cpu._is_vnni_supported`` (torch 2.13). Awaited: the same without the underscore.
    """
    import torch

    return bool(torch.cpu._is_vnni_supported())


def gelu_in_place(values: "torch.Tensor") -> "torch.Tensor":
    """Replace values, of any shape, by their exact GELU.

    Borrows ``torch.ops.aten.gelu_`` (torch 2.13). Awaited: ``inplace`` in ``torch.nn.functional.gelu``.
    """
    import torch

    return torch.ops.aten.gelu_(values)


def depthwise_backward(
    gradient: "torch.Tensor", features: "torch.Tensor", weight: "torch.Tensor", needed: Sequence[bool]
) -> tuple["torch.Tensor | None", ...]:
    """Return the gradients of a depthwise "same" convolution's features, weight and bias, those ``needed``, else None.

    Borrows ``torch.ops.aten.convolution_backward`` (torch 2.13). ``torch.nn.grad`` gives the same one gradient a call.

    Args:
        gradient: (N, C, H, W).
        features: (N, C, H, W).
        weight: (C, 1, k, k).
        needed: One flag each for the features, the weight and the bias.
    """
    import torch

    padding = weight.shape[-1] // 2
    return torch.ops.aten.convolution_backward(
        gradient,
        features,
        weight,
        [len(weight)],
        stride=[1, 1],
        padding=[padding, padding],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=len(weight),
        output_mask=list(needed),
    )


def mkl_linear() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Return MKL's packing of a weight and its product with a packed weight, or None where torch has no MKL.

    Borrows ``torch.ops.mkl._mkl_reorder_linear_weight`` and ``torch.ops.mkl._mkl_linear`` (torch 2.13), which
    inductor's frozen graphs use. Awaited: a public prepacked linear layer.
    """
    import torch

    if not torch.backends.mkl.is_available() or not hasattr(torch.ops.mkl, "_mkl_linear"):
        return None
    return torch.ops.mkl._mkl_reorder_linear_weight, torch.ops.mkl._mkl_linear


def onednn_linear() -> tuple[Callable[..., Any], Any]:
    """Return oneDNN's packing of a weight and its product with a packed weight and an activation behind it.

    Borrows ``torch.ops.mkldnn._reorder_linear_weight`` and ``torch.ops.mkldnn._linear_pointwise`` (torch 2.13), which
    inductor's frozen graphs use. Awaited: a public prepacked linear layer.
    """
    import torch

    return torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise


def onednn_int8_linear() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return oneDNN's packing of an 8-bit weight and its product with 8-bit values.

    Borrows ``torch.ops.onednn.qlinear_prepack`` and ``torch.ops.onednn.qlinear_pointwise`` (torch 2.13), which
    PyTorch's quantized graphs use. Awaited: documentation of either.
    """
    import torch

    return torch.ops.onednn.qlinear_prepack, torch.ops.onednn.qlinear_pointwise


def initialize_weights(model: "PreTrainedModel", module: "torch.nn.Module") -> None:
    """Give the parameters of one module of a model the values that the model's own initialization gives them.

    Borrows ``PreTrainedModel._init_weights`` and the mark ``_is_hf_initialized`` (transformers 5.16 to 5.23):
    parameters that ``to_empty`` has materialized carry the mark and would keep uninitialized memory. Awaited: a public
    initialization of one module; ``init_weights()`` covers whole models only.
    """
    for parameter in module.parameters():
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]
    model._init_weights(module)


def set_gradient_sync(accelerator: "Accelerator", is_last: bool) -> None:
    """Tell accelerate whether the next backward pass is the last one before the optimizer step.

    Borrows ``GradientState._set_sync_gradients`` (accelerate 1.15), from which DeepSpeed's engine learns where
    gradient accumulation ends. ``Accelerator.accumulate`` sets it too, but divides the loss by the number of
    micro-batches, and ours is divided by the tokens of the global batch already. Awaited: a public setter.
    """
    accelerator.gradient_state._set_sync_gradients(is_last)


def uvicorn_h11_protocol() -> Any:
    """Return uvicorn's HTTP/1.1 protocol class, to be subclassed for a time limit on the head of a request.

    Borrows ``uvicorn.protocols.http.h11_impl.H11Protocol`` with its attributes ``conn``, ``loop`` and ``transport`` and
    its methods ``handle_events`` and ``on_response_complete`` (uvicorn 0.54), none of them documented. Awaited: an
    option of uvicorn for this time limit.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    return H11Protocol
