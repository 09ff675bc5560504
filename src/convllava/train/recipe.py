"""Recipes: a training run as a YAML file, checked whole before anything starts.

A recipe may start from others (``extends: other.yaml``, or a list of which the later win): mappings are merged,
everything else replaced. It may follow another one (``after: other.yaml``): then it starts from what that one
leaves in its ``output_dir``, or from the ``init_from`` that it names, which must be a model of the same architecture
(``model`` is then known, whatever was inherited). Paths to files and folders inside a
recipe are relative to where the command is run; ``extends`` and ``after`` are relative to the recipe itself.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .options import FeatureCache, LoraOptions, SampleAnswers, check_options

TrainingStage = Literal["encoder", "foundation", "projector_init", "pretrain", "instruct"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class AppendStages(_Strict):
    """Fresh encoder stages: layers and channels of each."""

    depths: list[int]
    hidden_sizes: list[int]


class Architecture(_Strict):
    """What a model consists of: a preset's parts, and encoder stages put behind those of the preset.

    A preset's name alone means the preset as it is.
    """

    preset: str
    append_stages: AppendStages | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value


class Parts(_Strict):
    """A vision encoder and a language model, each a directory, file or hub id, to be joined by a fresh projector."""

    vision_tower: str
    language_model: str


class ReportedCost(_Strict):
    """What somebody else's run of this protocol took.

    Attributes:
        hours: Wall-clock time.
        devices: How many there were.
        device: Which.
        device_tflops: Peak rate of one in bfloat16, dense, as its maker states it.
        training_stages: What was run in that time.
        source: Where it is told.
    """

    hours: float = Field(gt=0)
    devices: int = Field(gt=0)
    device: str
    device_tflops: float = Field(gt=0)
    training_stages: list[TrainingStage] = Field(min_length=1)
    source: str


class DataEntry(_Strict):
    """One source of a mixture: a data set by name, or a LLaVA JSON or JSONL file or shards by path.

    ``streaming`` reads shards (parquet, WebDataset) where they lie instead of storing them first.
    """

    name: str | None = None
    path: Path | str | None = None  # text stays text: a path would spoil a URL
    image_folder: Path | None = None
    data_root: Path | None = None
    weight: float = Field(default=1.0, gt=0)
    count: int | None = Field(default=None, gt=0)
    seed: int = 0
    options: dict[str, Any] = {}
    streaming: bool | None = None


class ImageOptions(_Strict):
    """How images are shown; what is left out stays as the checkpoint has it."""

    aspect_ratio: Literal["pad", "native"] | None = None
    resolution: int | None = Field(default=None, gt=0)
    max_visual_tokens: int | None = Field(default=None, gt=0)


class Recipe(_Strict):
    """Everything that determines a training run.

    Attributes:
        model: What the model is before ``append_stages``. Alone: a preset to train from scratch.
        init_from: A checkpoint to go on from; it must be what ``model`` says, where that is given.
        init_from_parts: Instead of it, an encoder and a language model that have not met yet; needs ``model``.
        append_stages: Fresh encoder stages put behind the checkpoint's.
        training_stage: A row of ``train.stages.TRAINING_STAGES``.
        train_from_stage: First encoder stage that ``pretrain`` updates, counted from 1, its downsampling included.
        train_last_layers: Instead of it: that many encoder layers from the end; 0 keeps the encoder frozen.
        data: The mixture.
        data_root: Folder of the data sets known by name; by default the environment variable CONVLLAVA_DATA.
        learning_rate: Peak of every parameter that ``learning_rates`` ({regular expression: rate}) does not match.
        global_batch_size: Samples an update, whatever the number of devices.
        per_device_batch_size: Samples one device holds at a time; gradients accumulate up to the global size.
        groups_per_update: Groups of rows of like shapes that make up the global batch. 1 pads least; with more, one
            update mixes the kinds of samples, and a device should take at most a group at a time.
        epochs, max_steps: One of the two. With ``max_steps`` the sources share the samples by weight.
        stop_after_steps: End early, on the schedule of ``max_steps``.
        stop_after_minutes: End early too once a call has trained for so long, with a checkpoint to go on from.
        lr_scheduler: Any name that transformers knows.
        precision: bfloat16 keeps float32 master weights.
        max_length: Longest row in tokens.
        on_bad_sample: "stop": a sample that cannot be used ends the run. "skip": it is left out, and listed.
        save_every, log_every: Steps between checkpoints (kept: the last two) and log lines.
        train_language_layers: Only that many of the language model's last layers, and its last norm, are updated.
        lora: Adapters in place of a part's own weights; belongs to ``instruct``.
        engine: What several processes do: hold all of the model each (``ddp``), a share of it (``fsdp2``), or what
            ``deepspeed_config`` says.
        packing: Lay short samples end to end in rows as long as the longest; the same loss with less padding.
        torch_compile: Compile the layers; the same result within rounding, slower to start.
        sample_answers: Questions that are asked while the model learns.
        trackers: Where log lines go besides ``log.jsonl``; by default TensorBoard where it is installed.
        feature_cache: Keep a frozen encoder's features on disk.
        reported_costs: What the protocol took elsewhere; only shown beside the estimate.
    """

    training_stage: TrainingStage
    data: list[DataEntry] = Field(min_length=1)
    learning_rate: float = Field(gt=0)
    output_dir: Path
    model: Architecture | None = None
    init_from: str | None = None
    init_from_parts: Parts | None = None
    data_root: Path | None = None
    append_stages: AppendStages | None = None
    train_from_stage: int | None = Field(default=None, ge=1)
    train_last_layers: int | None = Field(default=None, ge=0)
    learning_rates: dict[str, float] = {}
    global_batch_size: int = Field(default=64, gt=0)
    per_device_batch_size: int | None = Field(default=None, gt=0)
    groups_per_update: int = Field(default=1, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    stop_after_steps: int | None = Field(default=None, gt=0)
    stop_after_minutes: float | None = Field(default=None, gt=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    lr_scheduler: str = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    activation_checkpointing: bool = False
    prompt_format: Literal["vicuna_v1", "llava_v1", "plain", "tokenizer"] | None = None
    image: ImageOptions = ImageOptions()
    max_length: int = Field(default=2048, gt=0)
    on_bad_sample: Literal["stop", "skip"] = "stop"
    num_workers: int = Field(default=0, ge=0)
    save_every: int = Field(default=500, gt=0)
    log_every: int = Field(default=10, gt=0)
    seed: int = 0
    train_language_layers: int | None = Field(default=None, ge=0)
    lora: LoraOptions | None = None
    engine: Literal["ddp", "fsdp2", "deepspeed"] = "ddp"
    deepspeed_config: Path | None = None
    packing: bool = False
    torch_compile: bool = False
    sample_answers: SampleAnswers | None = None
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] | None = None
    feature_cache: FeatureCache | None = None
    reported_costs: list[ReportedCost] = []

    @model_validator(mode="before")
    @classmethod
    def _share_data_root(cls, values: Any) -> Any:
        """Hand the recipe's folder of data sets to every named one that has none of its own."""
        root, entries = values.get("data_root"), values.get("data")
        if root is None or not isinstance(entries, list):
            return values
        shared = [
            {"data_root": root} | entry if isinstance(entry, dict) and "name" in entry else entry for entry in entries
        ]
        return values | {"data": shared}

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        _has_a_start(self)
        _exactly_one(self, "epochs", "max_steps")
        if self.global_batch_size % self.groups_per_update:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of groups_per_update "
                f"{self.groups_per_update}; change one of them"
            )
        if self.training_stage == "pretrain":
            _exactly_one(self, "train_from_stage", "train_last_layers")
        elif self.train_from_stage is not None or self.train_last_layers is not None:
            raise ValueError(
                "train_from_stage and train_last_layers belong to training_stage pretrain, "
                f"not to {self.training_stage}"
            )
        check_options(self)
        return self

    @property
    def architecture(self) -> Architecture | None:
        """What is trained, appended stages included; None where only the checkpoint tells."""
        if self.model is None or self.append_stages is None:
            return self.model
        before = self.model.append_stages or AppendStages(depths=[], hidden_sizes=[])
        appended = AppendStages(
            depths=before.depths + self.append_stages.depths,
            hidden_sizes=before.hidden_sizes + self.append_stages.hidden_sizes,
        )
        return Architecture(preset=self.model.preset, append_stages=appended)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, what it extends and follows, and ``key=value`` overrides (``image.resolution=512``).

    Raises:
        ValueError: For a missing file, an unknown key (names the nearest) or a value that does not fit.
    """
    values = _read(Path(path), seen=())
    for override in overrides:
        _apply(values, override)
    _follow(values, seen=(Path(path).resolve(),))
    return _validated(values, path)


def load_chain(path: str | Path, overrides: Sequence[str] = ()) -> list[Recipe]:
    """Read a recipe and those it follows (``after``), the first one first; the overrides are the last one's.

    Raises:
        ValueError: As :func:`load_recipe`.
    """
    chain = [load_recipe(path, overrides)]
    while (previous := _read(Path(path), seen=()).get("after")) is not None:
        path = previous
        chain.insert(0, load_recipe(path))
    return chain


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with every value spelled out."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _validated(values: dict[str, Any], path: str | Path) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"recipe {path}: " + "; ".join(map(_explain, error.errors()))) from error


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read a recipe with what it extends; ``after`` becomes a path from here."""
    if path.resolve() in seen:
        raise ValueError(f"recipe {path} extends itself, by way of {', '.join(map(str, seen))}")
    own = _parse(path)
    if isinstance(own.get("after"), str):
        own["after"] = str(path.parent / own["after"])
    bases = own.pop("extends", None) or []
    values: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        values = _merge(values, _read(path.parent / base, (*seen, path.resolve())))
    return _merge(values, own)


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"no recipe {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"recipe {path} must be a mapping of keys to values")
    return values


def _follow(values: dict[str, Any], seen: tuple[Path, ...]) -> None:
    """Turn ``after`` into what it means: the checkpoint to start from, and its architecture."""
    after = values.pop("after", None)
    if after is None:
        return
    if Path(after).resolve() in seen:
        raise ValueError(f"recipe {after} comes after itself, by way of {', '.join(map(str, seen))}")
    previous = _read(Path(after), seen=())
    _follow(previous, seen=(*seen, Path(after).resolve()))
    leaves = _validated(previous, after)
    values.pop("init_from_parts", None)  # inherited from the recipe that the chain begins with
    values.setdefault("init_from", str(leaves.output_dir))
    if leaves.architecture is not None:
        values["model"] = leaves.architecture.model_dump()


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_mappings else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"override {override!r} is not key=value")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ValueError(f"override {override!r}: {parent!r} is not a mapping")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"override {override!r}: the value is not valid YAML ({reason}); quote what is text"
        ) from error


def _has_a_start(recipe: Recipe) -> None:
    if recipe.init_from is not None and recipe.init_from_parts is not None:
        raise ValueError("give one of init_from and init_from_parts, not both")
    if recipe.model is None and recipe.init_from is None:
        raise ValueError("give model (a preset, to train from scratch; or what init_from_parts make) or init_from")


def _exactly_one(recipe: Recipe, *names: str) -> None:
    given = [name for name in names if getattr(recipe, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {' and '.join(names)}, got {', '.join(given) or 'none'}")


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1]), _keys_beside(error["loc"]), n=1)
        return f"unknown key {place!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message} (got {error['input']!r})" if place else message


def _keys_beside(location: tuple[str | int, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "data": DataEntry,
        "image": ImageOptions,
        "append_stages": AppendStages,
        "model": Architecture,
        "init_from_parts": Parts,
        "reported_costs": ReportedCost,
        "lora": LoraOptions,
        "sample_answers": SampleAnswers,
        "feature_cache": FeatureCache,
    }
    model = models.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    return list(model.model_fields)
