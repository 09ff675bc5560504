"""Groups of a recipe's options: the values of its keys ``data``, ``image``, ``lora``, ``validation`` and others."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ..image_options import ImageAspectRatio, ImageOptions
from ..metrics import MetricName
from .architecture import Strict

TrainingStage = Literal["encoder", "foundation", "projector_init", "pretrain", "instruct"]

SYNTHETIC_PREFIX = "synthetic/"
"""Beginning of the names of generated sources."""


MAX_COUNT = 10**8
"""Maximum of counts that a run keeps lists for; the order of the samples of a longer one would fill the memory."""


class Parts(Strict):
    """A vision encoder and a language model, each a directory, file or hub id, joined by a fresh projector."""

    vision_tower: str
    language_model: str


class ReportedCost(Strict):
    """The published cost of running this protocol elsewhere.

    Attributes:
        hours: Wall-clock time in hours.
        devices: Number of devices.
        device: Name of the device.
        device_tflops: Peak rate of one device in bfloat16, dense, as its vendor states it.
        training_stages: Training stages covered by ``hours``.
        source: Publication that reports the figures.
    """

    hours: float = Field(gt=0)
    devices: int = Field(gt=0)
    device: str
    device_tflops: float = Field(gt=0)
    training_stages: list[TrainingStage] = Field(min_length=1)
    source: str


class DataEntry(Strict):
    """One source of a mixture: a data set by name, or a data file, a folder or shards by path.

    ``format`` names the format of its records, which is recognized by default (``data.formats``). ``streaming`` reads
    shards (parquet, WebDataset) in place instead of storing them first.
    """

    name: str | None = None
    path: Path | str | None = None  # a URL stays text: Path would merge its slashes
    format: str | None = None
    image_folder: Path | None = None
    data_root: Path | None = None
    weight: float = Field(default=1.0, gt=0, le=1e12)
    count: int | None = Field(default=None, gt=0, le=MAX_COUNT)
    seed: int = 0
    options: dict[str, Any] = {}
    streaming: bool | None = None

    @property
    def label(self) -> str:
        """Name of the source in logs and messages."""
        return self.name or str(self.path)

    @property
    def is_generated(self) -> bool:
        """Whether the samples are drawn when they are needed."""
        return self.path is None and self.name is not None and self.name.startswith(SYNTHETIC_PREFIX)


class ImageSettings(Strict):
    """Preprocessing of images; options that are not set keep the checkpoint's values."""

    aspect_ratio: ImageAspectRatio | None = None
    resolution: int | None = Field(default=None, gt=0)
    max_visual_tokens: int | None = Field(default=None, gt=0)

    @property
    def options(self) -> ImageOptions:
        """The settings as options of an image processor."""
        return ImageOptions(self.aspect_ratio, self.resolution, self.max_visual_tokens)


class LanguageAdapter(Strict):
    """Low-rank adapters on every matrix of the language model's layers; ``alpha / rank`` scales them."""

    rank: int = Field(default=128, gt=0)
    alpha: int = Field(default=256, gt=0)


class TowerAdapter(Strict):
    """Low-rank adapters on both pointwise matrices of each encoder layer, from stage ``from_stage`` on."""

    rank: int = Field(default=32, gt=0)
    alpha: int = Field(default=64, gt=0)
    from_stage: int = Field(default=1, ge=1)


class LoraOptions(Strict):
    """Low-rank adapters that are trained instead of the weights themselves (Hu et al., 2021).

    Attributes:
        language_model: Adapters of the language model; without them it stays frozen.
        vision_tower: Adapters of the vision encoder; without them it stays frozen.
        dropout: Dropout on the adapters' inputs.
        quantize: Format of the language model's frozen matrices in memory: 4 bits (QLoRA; Dettmers et al., 2023).
        merge: Whether to save the model with the adapters merged into its weights as well.
    """

    language_model: LanguageAdapter | None = None
    vision_tower: TowerAdapter | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)
    quantize: Literal["nf4"] | None = None
    merge: bool = True

    @model_validator(mode="after")
    def _adapts_something(self) -> "LoraOptions":
        if self.language_model is None and self.vision_tower is None:
            raise ValueError("give lora at least one of language_model and vision_tower")
        return self


class SamplePrompt(Strict):
    """A question that is asked repeatedly during training, about an image or about none."""

    question: str
    image: Path | None = None


class SampleAnswers(Strict):
    """Answers generated during training, which show the progress.

    Attributes:
        every: Steps between two rounds of answers.
        prompts: Questions; the first questions of the first ``count`` samples by default.
        count: Number of samples whose questions are asked if there are no ``prompts``.
        max_new_tokens: Maximum length of an answer in tokens.
    """

    every: int = Field(gt=0)
    prompts: list[SamplePrompt] = []
    count: int = Field(default=4, gt=0)
    max_new_tokens: int = Field(default=64, gt=0)


class ValidationAnswers(Strict):
    """Answers generated on held-out data, and the metric by which they are scored.

    Attributes:
        metric: Name of a metric of ``convllava.metrics``, or "auto" for one that fits the true answers.
        count: Maximum number of questions; they are spread over the held-out samples.
        max_new_tokens: Maximum length of an answer in tokens.
        shown: Number of answers that are kept with their images for the report.
    """

    metric: MetricName | Literal["auto"] = "auto"
    count: int = Field(default=64, gt=0)
    max_new_tokens: int = Field(default=64, gt=0)
    shown: int = Field(default=8, ge=0)


class Validation(Strict):
    """Held-out data and their use.

    Attributes:
        data: Sources that are held out completely.
        fraction: Share of the images of each file of the recipe's ``data`` that is held out, at least one image. A
            sample is held out if one of its images is. Generated sources are not divided: none of their samples
            repeats, so that their training loss is a held-out loss.
        images: Number of images of each file that is held out instead.
        by: Identity of an image: "content" reads every file once and knows copies under other names, "path" does not.
        seed: Seed of the choice.
        eval_every: Steps between two validations; there is one before the first step and after the last one too.
        keep_best: The figure by which the best model is kept and becomes the result: the held-out loss, or the metric
            of the answers. The last model is the result by default.
        patience: Number of validations in a row without improvement that end the run.
        answers: Answers to held-out questions.
    """

    data: list[DataEntry] = []
    fraction: float | None = Field(default=None, gt=0, lt=1)
    images: int | None = Field(default=None, gt=0)
    by: Literal["content", "path"] = "content"
    seed: int = 0
    eval_every: int = Field(gt=0)
    keep_best: Literal["loss", "metric"] | None = None
    patience: int | None = Field(default=None, gt=0)
    answers: ValidationAnswers | None = None

    @model_validator(mode="after")
    def _holds_something_out(self) -> "Validation":
        given = [name for name in ("data", "fraction", "images") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of data, fraction and images, got {', '.join(given) or 'none'}")
        if self.keep_best == "metric" and self.answers is None:
            raise ValueError("keep_best: metric needs answers, which are scored")
        return self


class FeatureCache(Strict):
    """Features of a frozen encoder, cached on disk so that each image is encoded once.

    Attributes:
        folder: Folder of the cache; runs with the same encoder may share it.
        limit_gb: Maximum size; a run whose estimate exceeds it is rejected.
    """

    folder: Path
    limit_gb: float = Field(gt=0)
