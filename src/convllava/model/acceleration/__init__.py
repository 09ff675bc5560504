"""Faster backends of the vision encoder: what ``ConvLlavaVisionModel.set_backend`` chooses from.

A backend computes the encoder's last feature map from the encoder's own weights: images (N, 3, H, W) to features
(N, h, w, C). The encoder works without this folder, and exported model code does not carry it. To add a backend, write
a class with the interface of ``EncoderBackend`` and a builder in `BACKENDS`.
"""

from collections.abc import Callable

from torch import Tensor

from ..vision_convllava import ConvLlavaVisionModel, EncoderBackend

Size = tuple[int, int]


def _auto(tower: ConvLlavaVisionModel, size: Size | None) -> EncoderBackend:
    match tower.device.type:
        case "cpu":
            from .cpu import fastest_precision

            return _cpu(fastest_precision())(tower, size)
        case "cuda":
            return _cuda(tower, size)
    raise ValueError(f"no backend is faster on {tower.device.type}: keep 'eager'")


def _cpu(precision: str) -> Callable[[ConvLlavaVisionModel, Size | None], EncoderBackend]:
    def build(tower: ConvLlavaVisionModel, size: Size | None) -> EncoderBackend:
        from .cpu import DEFAULT_SIZE, CpuEncoder

        _check(tower, f"cpu-{precision}", "cpu")
        return CpuEncoder(tower, precision, size or DEFAULT_SIZE)

    return build


def _cuda(tower: ConvLlavaVisionModel, size: Size | None) -> EncoderBackend:
    from .cuda import CudaEncoder

    _check(tower, "cuda", "cuda")
    return CudaEncoder(tower)


def _triton(tower: ConvLlavaVisionModel, size: Size | None) -> EncoderBackend:
    from .cuda import FusedLayers

    _check_device(tower, "triton", "cuda")
    return FusedLayers(tower)


def _check(tower: ConvLlavaVisionModel, name: str, device: str) -> None:
    _check_device(tower, name, device)
    if any(type(weight.data) is not Tensor or not weight.is_floating_point() for weight in tower.parameters()):
        raise ValueError("the vision encoder's weights are quantized: load them without quantize_vision")


def _check_device(tower: ConvLlavaVisionModel, name: str, device: str) -> None:
    if tower.device.type != device:
        required = {"cpu": "a CPU", "cuda": "an NVIDIA GPU"}[device]
        raise ValueError(f"backend {name!r} needs {required} and the vision encoder is on {tower.device.type}")


BACKENDS: dict[str, Callable[[ConvLlavaVisionModel, Size | None], EncoderBackend]] = {
    "auto": _auto,
    "cpu-float32": _cpu("float32"),
    "cpu-bfloat16": _cpu("bfloat16"),
    "cpu-int8": _cpu("int8"),
    "cuda": _cuda,
    "triton": _triton,
}
"""Builders by name; each raises a ValueError where its backend cannot run."""
