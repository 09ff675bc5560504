"""The model class for VLMEvalKit.

A contract test checks it against the kit's interface; it has not been run inside the kit. In a checkout of VLMEvalKit,
add to ``run.py`` before the models are looked up::

    from convllava.eval.adapters.vlmevalkit import register
    register("ConvLLaVA-mine", model_path="runs/mine")
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vlmeval.vlm.base import BaseModel  # type: ignore[import-not-found]

from ...image_options import ImageOptions
from ...inference import Generator, Request, load_pretrained
from ..answering import answer_all
from ..benchmark import Benchmark, LoadOptions
from ..benchmarks import find_benchmark
from ..prompts import PromptProfile, user_message


class ConvLLaVA(BaseModel):
    """Answers the kit's messages.

    Args:
        model_path: The bundled ``nano``, a checkpoint directory or a hub id.
        prompts: Source of the prompts' texts for the benchmarks of this package; others get the kit's prompts.
        prompt_format: Prompt format; the kit of the paper's time used ``llava_v1`` with LLaVA models.
        **image_options: Fields of `ImageOptions`; by default those of the checkpoint.
    """

    INSTALL_REQ = False
    INTERLEAVE = True

    def __init__(
        self,
        model_path: str = "nano",
        prompts: PromptProfile = "paper",
        prompt_format: str | None = None,
        **image_options: Any,
    ) -> None:
        super().__init__()
        model, processor = load_pretrained(model_path)
        if prompt_format is not None:
            processor.set_prompt_format(prompt_format)
        self._generator = Generator(model, processor, max_batch=1)
        self._options = LoadOptions(prompts)
        self._image = ImageOptions(**image_options)

    def use_custom_prompt(self, dataset: str | None) -> bool:
        """Return whether the prompts of a dataset are made here."""
        return _benchmark(dataset) is not None

    def build_prompt(self, line: Any, dataset: str | None = None) -> list[dict[str, str]]:
        """Return the kit's message for a row of its table.

        Raises:
            ValueError: The dataset is unknown; the kit calls `use_custom_prompt` first.
        """
        benchmark = find_benchmark(str(dataset))
        paths = self.dump_image(line, dataset)
        row = {name: None if _is_nan(cell) else cell for name, cell in dict(line).items()}
        prompt = benchmark.prompt(row, len(paths), self._options)
        return [
            {"type": "image", "value": str(paths[part])} if isinstance(part, int) else {"type": "text", "value": part}
            for part in prompt
        ]

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """Return the answer to a message of the kit."""
        images = [part["value"] for part in message if part["type"] == "image"]
        numbers = iter(range(len(images)))
        prompt = [next(numbers) if part["type"] == "image" else part["value"] for part in message]
        request = Request(messages=[user_message(prompt)], images=images, image_options=self._image)
        return answer_all(self._generator, [lambda: request])[0]


def register(name: str, **options: Any) -> None:
    """Add a model to the kit's table of models."""
    from vlmeval.config import supported_VLM  # type: ignore[import-not-found]

    supported_VLM[name] = partial(ConvLLaVA, **options)


def _benchmark(dataset: str | None) -> Benchmark | None:
    try:
        return find_benchmark(dataset) if dataset else None
    except ValueError:
        return None


def _is_nan(cell: Any) -> bool:
    return isinstance(cell, float) and cell != cell
