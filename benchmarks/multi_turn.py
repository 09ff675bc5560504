"""Seconds to the first token of the second question about an image, compared with the first.

Every round has a new Generator, so that the first question always includes the image. The second one continues the
dialogue: the features of the image and the keys and values of the first turn exist already, if the cache keeps them.

Goal: the second at least 5x faster than the first, at 1536 x 1536.
"""

import argparse
from statistics import median

import torch
from common import Report, main, parser, rounds_of
from PIL import Image
from transformers import AutoModelForImageTextToText

from convllava.inference import Generator, Request, load_pretrained, question_message
from convllava.model import ConvLlavaForConditionalGeneration, build_nano_processor, preset

CACHE = 8 << 30


def random_model(
    name: str, device: str, dtype: torch.dtype, resolution: int | None, layers: int | None
) -> tuple[ConvLlavaForConditionalGeneration, object]:
    """Return a model of a preset's size with random weights, and its processor."""
    config = preset(name)
    if layers is not None:
        config.text_config.num_hidden_layers = layers
    config.image_aspect_ratio, config.resolution = "native", resolution
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    processor = build_nano_processor(image_aspect_ratio="native", resolution=resolution)
    config.image_token_id = processor.image_token_id  # any row will do: the weights mean nothing
    return model, processor


def dialogue(generator: Generator, image: Image.Image, tokens: int) -> list[float]:
    """Ask three questions and return the seconds to each first token."""
    messages: list[dict[str, object]] = []
    found = []
    for question in ("What is shown here?", "And what is on the left?", "How many are there?"):
        messages.append(question_message(question, num_images=0 if messages else 1))
        (answer,) = generator.generate([Request(messages=messages, images=[image], max_new_tokens=tokens)])
        found.append(answer.timings.first_token_seconds)
        messages.append({"role": "assistant", "content": answer.text or "?"})
    return found


def run(report: Report) -> None:
    """Measure dialogues at each resolution."""
    arguments = report.arguments
    sides = arguments.side or ([256] if arguments.quick else [768, 1536])
    if arguments.preset:
        loaded = random_model(
            arguments.preset, arguments.device, getattr(torch, arguments.dtype), None, arguments.layers
        )
    else:
        loaded = load_pretrained("nano", device=arguments.device)
    for side in sides:
        image = Image.effect_noise((side, side), 60).convert("RGB")
        for kept in (0, CACHE):
            turns = [
                dialogue(Generator(*loaded, max_batch=1, prefix_cache_bytes=kept), image, arguments.tokens)
                for _ in range(rounds_of(arguments) + 1)
            ][1:]  # the first is a warm-up
            first, second, third = (median(times) for times in zip(*turns, strict=True))
            report.add(
                model=arguments.preset or "nano",
                layers=loaded[0].config.text_config.num_hidden_layers,
                side=side,
                prefix_kept=bool(kept),
                first_ms=1000 * first,
                second_ms=1000 * second,
                third_ms=1000 * third,
                times=median(one / two for one, two, _ in turns),
            )


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--preset", help="preset with random weights, such as convllava-7b-1536, instead of nano")
    found.add_argument("--layers", type=int, help="of --preset's language model, where all do not fit into memory")
    found.add_argument("--dtype", default="bfloat16", help="of --preset (default: bfloat16)")
    found.add_argument("--side", type=int, action="append", help="of the image; repeatable")
    found.add_argument("--tokens", type=int, default=8, help="of each answer (default: 8)")
    return found


if __name__ == "__main__":
    main("multi_turn", run, options())
