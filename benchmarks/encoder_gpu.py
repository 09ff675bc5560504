"""The vision encoder on an NVIDIA GPU: against transformers and timm, the GPU's own peak and its memory's.

ConvNeXt-L with five stages in bfloat16 at 768, 1024 and 1536, one image and sixteen. transformers and, where it is
installed, timm (its four stages, and ours with as many) run eagerly in channels_last; ours runs eagerly and with the
backend "cuda" (fused kernels, CUDA graphs). `of_peak` is the FLOP rate relative to a large matrix product on the same
GPU; `of_bandwidth` is the rate of the bytes that the fused convolution and norm must move, relative to a large copy.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import Report, Run, Timings, main, paired, parser, rounds_of, seconds
from encoder import ours, products, theirs
from torch import Tensor

from convllava.analysis import model_cost
from convllava.model import ConvLlavaVisionModel, preset

DTYPE = torch.bfloat16
WARM_UPS = 4


def peak_flops() -> float:
    """Return the FLOP/s of a large product."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=DTYPE) for _ in range(2))
    return 10 * 2 * 8192**3 / _fastest(lambda: [left @ right for _ in range(10)])


def peak_bytes() -> float:
    """Return the bytes/s of a large copy, read and written."""
    source = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 10 * 2 * source.nbytes / _fastest(lambda: [target.copy_(source) for _ in range(10)])


def _fastest(run: Run) -> float:
    run()
    return min(seconds(run, "cuda") for _ in range(5))


def encoder(report: Report, tower: ConvLlavaVisionModel, side: int, batch: int, peak: float) -> None:
    """Compare encoders at one size."""
    pixels = torch.randn(batch, 3, side, side, device="cuda", dtype=DTYPE)
    last = pixels.contiguous(memory_format=torch.channels_last)
    tower.set_backend("cuda")
    model = theirs(tower).to(memory_format=torch.channels_last)
    runs: dict[str, Run] = {
        "eager": partial(tower, pixels, output_hidden_states=True),
        "fast": partial(tower, pixels),
        "transformers": partial(model, last),
        "limit": products(tower.config, batch, side, DTYPE, "cuda"),
    }
    timings = paired(runs, rounds_of(report.arguments), "cuda", WARM_UPS)
    exact = tower(pixels, output_hidden_states=True).last_hidden_state.float()
    cost = model_cost(preset("convllava-7b-1536"), side, side)
    flops = batch * sum(part.flops for part in cost.vision)
    report.add(
        side=side,
        batch=batch,
        **_milliseconds(timings),
        times_transformers=timings.ratio("transformers", "fast"),
        of_limit=timings.ratio("limit", "fast"),
        of_peak=flops / timings.median("fast") / peak,
        difference=float((tower(pixels).last_hidden_state.float() - exact).norm() / exact.norm()),
    )


def against_timm(report: Report, side: int, batch: int) -> None:
    """Compare four stages with timm's."""
    try:
        import timm
    except ImportError:
        report.add(timm="not installed (pip install timm): not compared")
        return
    reference = timm.create_model("convnext_large", features_only=True, out_indices=(3,)).cuda().to(DTYPE).eval()
    reference = reference.to(memory_format=torch.channels_last)
    tower = ours(preset("convnext-l-four-stage-7b-1536").vision_config).cuda().to(DTYPE)
    tower.set_backend("cuda")
    pixels = torch.randn(batch, 3, side, side, device="cuda", dtype=DTYPE)
    last = pixels.contiguous(memory_format=torch.channels_last)
    runs: dict[str, Run] = {"fast": partial(tower, pixels), "timm": partial(reference, last)}
    timings = paired(runs, rounds_of(report.arguments), "cuda", WARM_UPS)
    report.add(four_stages=side, batch=batch, **_milliseconds(timings), times_timm=timings.ratio("timm", "fast"))


def fused_kernel(report: Report, channels: int, side: int, batch: int, peak: float) -> None:
    """Compare convolution and norm, fused and apart, forward and with gradients."""
    from convllava.model.acceleration.triton_conv_norm import depthwise_norm

    shapes = [(batch, side, side, channels), (channels, 1, 7, 7), *[(channels,)] * 3]
    tensors = [torch.randn(shape, device="cuda", dtype=DTYPE).requires_grad_() for shape in shapes]

    def plain() -> Tensor:
        features, weight, bias, norm_weight, norm_bias = tensors
        found = torch.nn.functional.conv2d(features.permute(0, 3, 1, 2), weight, bias, padding=3, groups=channels)
        return torch.nn.functional.layer_norm(found.permute(0, 2, 3, 1), (channels,), norm_weight, norm_bias, 1e-6)

    def fused() -> Tensor:
        return depthwise_norm(*tensors, 1e-6)

    def backward(run: Callable[[], Tensor]) -> None:
        output = run()
        torch.autograd.grad(output, tensors, torch.ones_like(output))

    def forward(run: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            run()

    runs: dict[str, Run] = {
        "plain": partial(forward, plain),
        "fused": partial(forward, fused),
        "plain with gradients": partial(backward, plain),
        "fused with gradients": partial(backward, fused),
    }
    timings = paired(runs, rounds_of(report.arguments), "cuda", WARM_UPS)
    moved = 2 * tensors[0].nbytes
    report.add(
        channels=channels,
        map=side,
        batch=batch,
        **_milliseconds(timings),
        times=timings.ratio("plain", "fused"),
        times_with_gradients=timings.ratio("plain with gradients", "fused with gradients"),
        of_bandwidth=moved / timings.median("fused") / peak,
    )


def _milliseconds(timings: Timings) -> dict[str, float]:
    return {f"{name.replace(' ', '_')}_ms": 1000 * timings.median(name) for name in timings.seconds}


def run(report: Report) -> None:
    """Measure all of it, or say that there is no GPU."""
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs an NVIDIA GPU and a torch with CUDA; for a CPU there is encoder.py")
    quick = report.arguments.quick
    flops, transfer = peak_flops(), peak_bytes()
    report.add(product_tflops=flops / 1e12, copy_gb_per_second=transfer / 1e9)
    for stage, channels in enumerate([192, 384, 768, 1536, 3072]):
        fused_kernel(report, channels, (256 if quick else 1024) // 4 >> stage, 1, transfer)
    with torch.no_grad():
        tower = ours(preset("convllava-7b-1536").vision_config).cuda().to(DTYPE)
        for side in [256] if quick else [768, 1024, 1536]:
            for batch in [1] if quick else [1, 16]:
                encoder(report, tower, side, batch, flops)
                against_timm(report, side, batch)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.set_defaults(device="cuda")
    return found


if __name__ == "__main__":
    main("encoder_gpu", run, options())
