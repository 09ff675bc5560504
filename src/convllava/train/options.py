"""Groups of recipe keys: adapters, sample answers, the cache of encoder features."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from .recipe import Recipe


class Strict(BaseModel):
    """Refuses unknown keys; never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LanguageAdapter(Strict):
    """Low-rank matrices beside every matrix of the language model's layers; ``alpha / rank`` scales them."""

    rank: int = Field(default=128, gt=0)
    alpha: int = Field(default=256, gt=0)


class TowerAdapter(Strict):
    """Low-rank matrices beside both pointwise matrices of each encoder layer, from stage ``from_stage`` on."""

    rank: int = Field(default=32, gt=0)
    alpha: int = Field(default=64, gt=0)
    from_stage: int = Field(default=1, ge=1)


class LoraOptions(Strict):
    """Adapters that are trained in place of a part's own weights (Hu et al., 2021).

    Attributes:
        language_model, vision_tower: The parts that get adapters; at least one. A part without one stays frozen.
        dropout: On the adapters' inputs.
        quantize: Hold the language model's frozen matrices in 4 bits (QLoRA; Dettmers et al., 2023).
        merge: Also save the model with the adapters added to its weights, so that it loads like any other.
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
    """A question that is asked again and again while the model learns; without ``image``, about nothing."""

    question: str
    image: Path | None = None


class SampleAnswers(Strict):
    """Answers given while training, so that one sees it learn.

    Attributes:
        every: Steps between two rounds.
        prompts: What is asked; by default the questions of the first ``count`` samples drawn.
        max_new_tokens: Longest answer.
    """

    every: int = Field(gt=0)
    prompts: list[SamplePrompt] = []
    count: int = Field(default=4, gt=0)
    max_new_tokens: int = Field(default=64, gt=0)


class FeatureCache(Strict):
    """Features of a frozen encoder kept on disk, so that an image is encoded once.

    Attributes:
        folder: Where they lie; several runs with the same encoder may share it.
        limit_gb: The run is refused when they would take more.
    """

    folder: Path
    limit_gb: float = Field(gt=0)


def check_options(recipe: "Recipe") -> None:
    """Refuse options that contradict each other or the training stage.

    Raises:
        ValueError: Names both and the way out.
    """
    if recipe.lora is not None:
        _check_lora(recipe)
    if (recipe.engine == "deepspeed") != (recipe.deepspeed_config is not None):
        raise ValueError("engine deepspeed and deepspeed_config belong together: give both or neither")
    if recipe.sample_answers is not None and recipe.engine != "ddp":
        raise ValueError(f"sample_answers needs the whole model in each process, and engine {recipe.engine} divides it")
    if recipe.feature_cache is not None and (recipe.engine != "ddp" or not _encoder_is_frozen(recipe)):
        raise ValueError("feature_cache needs a frozen encoder (instruct, or train_last_layers: 0) and engine ddp")
    if recipe.training_stage == "encoder":
        _check_encoder_alone(recipe)


def _check_lora(recipe: "Recipe") -> None:
    assert recipe.lora is not None
    if recipe.training_stage != "instruct" or recipe.init_from is None or recipe.append_stages is not None:
        raise ValueError("lora belongs to training_stage instruct, with init_from and without append_stages")
    if recipe.train_language_layers is not None:
        raise ValueError("give one of lora and train_language_layers: a part has adapters or is trained itself")
    if recipe.engine != "ddp":
        raise ValueError(f"lora needs engine ddp: every process holds the frozen weights, got {recipe.engine}")


def _encoder_is_frozen(recipe: "Recipe") -> bool:
    adapted = recipe.lora is not None and recipe.lora.vision_tower is not None
    told = recipe.training_stage == "pretrain" and recipe.train_last_layers == 0
    return (recipe.training_stage == "instruct" or told) and not adapted


def _check_encoder_alone(recipe: "Recipe") -> None:
    """The encoder's own lessons know no language model, and are small."""
    unfit = {
        "engine": recipe.engine != "ddp",
        "packing": recipe.packing,
        "sample_answers": recipe.sample_answers is not None,
        "train_language_layers": recipe.train_language_layers is not None,
    }
    given = [name for name, is_given in unfit.items() if is_given]
    if given:
        raise ValueError(f"training_stage encoder does without a language model, and so without {', '.join(given)}")
