"""Train the arms that are missing, measure them on held-out samples, and compare them."""

import json
import logging
import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..analysis import model_cost
from ..eval.compare import compare
from ..eval.predictions import PredictionFile
from ..eval.runner import run_benchmark
from ..inference import Generator, load_pretrained
from ..support import write_json
from ..train import Pipeline, load_pipeline, train
from ..train.callbacks import LOG_FILE, OnLog, read_log
from ..train.output_folder import recipe_changes
from .catalog import Arm, Catalog, Claim, Finding, Measuring

logger = logging.getLogger(__name__)

Report = Callable[[str], OnLog | None]
"""Function from the title of a training run to the function that shows its log, or None."""


@dataclass(frozen=True)
class FindingsSettings:
    """Settings of a run over findings.

    Attributes:
        catalog: The catalog.
        names: Names of the findings; empty for all.
        out: Folder of the trained arms and the results; what is there already is not trained or measured again.
        quick: Whether to take the catalog's quick form.
        seeds: Number of seeds in place of the catalog's.
        like: Name of an arm that is run once more with ``changes``.
        changes: Values in place of those of its pipeline, such as ``steps.pretrain.max_steps=100``.
    """

    catalog: Catalog
    names: list[str]
    out: Path
    quick: bool = False
    seeds: int | None = None
    like: str | None = None
    changes: tuple[str, ...] = ()

    @property
    def measuring(self) -> Measuring:
        """How arms are trained and measured."""
        return self.catalog.quick if self.quick else self.catalog.full

    @property
    def folder(self) -> Path:
        """Folder of this form: the quick form's models are others."""
        return self.out / ("quick" if self.quick else "full")


@dataclass(frozen=True)
class Measured:
    """The measured figures of one arm with one seed.

    Attributes:
        seed: Seed of its training.
        folder: Folder of its predictions.
        values: Figure of each benchmark.
        visual_tokens: Mean number of visual tokens of a sample, over the benchmarks.
        seconds: Mean seconds of a sample, over the benchmarks.
        gflops: GFLOPs to the first token of an image of the resolution that the arm was trained with.
    """

    seed: int
    folder: Path
    values: dict[str, float]
    visual_tokens: float
    seconds: float
    gflops: float


@dataclass(frozen=True)
class Verdict:
    """A claim and the measured difference.

    Attributes:
        text: The statement of the paper.
        difference: Mean difference between the two arms over the seeds, in points; above 0 as the paper says.
        interval: 95 % interval of it, from the samples and the seeds.
        shows: "shows", "does not show", "shows the opposite", or "cannot be told" where both arms are at zero.
    """

    text: str
    benchmark: str
    arm: str
    than: str
    difference: float
    interval: tuple[float, float]
    shows: str


@dataclass(frozen=True)
class Result:
    """Result of one finding.

    Attributes:
        arms: Figures of each arm, seed by seed.
    """

    name: str
    finding: Finding
    arms: dict[str, list[Measured]]
    verdicts: list[Verdict]


def run_findings(settings: FindingsSettings, report: Report = lambda title: None) -> Iterator[Result]:
    """Train, measure and compare, one finding after the other.

    Args:
        settings: The settings.
        report: Shows the progress of a training run.

    Raises:
        ValueError: A name is unknown, or a model in the folder was trained by another recipe.
    """
    for name, finding in settings.catalog.choose(settings.names).items():
        arms = _with_changed_arm(name, finding, settings)
        measured: dict[str, list[Measured]] = {arm: [] for arm in arms}
        for seed in range(settings.seeds or settings.measuring.seeds):
            for arm, (definition, changes) in arms.items():
                model = _train_arm(definition, changes, seed, settings, report)
                measured[arm].append(_measure(model, definition, seed, settings))
        verdicts = [_verdict(claim, measured, settings) for claim in finding.claims]
        result = Result(name, finding, measured, verdicts)
        write_json(settings.folder / f"{name}.json", _as_json(result))
        yield result


def _with_changed_arm(
    name: str, finding: Finding, settings: FindingsSettings
) -> dict[str, tuple[Arm, tuple[str, ...]]]:
    """Return the arms with their changes; ``like`` adds one that differs from another arm by some values."""
    arms: dict[str, tuple[Arm, tuple[str, ...]]] = {arm: (found, ()) for arm, found in finding.arms.items()}
    if settings.like is None:
        if settings.changes:
            raise ValueError("KEY=VALUE needs --like ARM, the arm that it changes")
        return arms
    if len(settings.names) != 1 or not settings.changes:
        raise ValueError("--like ARM needs one finding and the values to change: findings run F9 --like ARM KEY=VALUE")
    if settings.like not in arms:
        raise ValueError(f"{name} has no arm {settings.like!r}: one of {', '.join(arms)}")
    label = f"{settings.like}, {', '.join(change.rsplit('.', 1)[-1] for change in settings.changes)}"
    return {**arms, label: (arms[settings.like][0], settings.changes)}


def _train_arm(arm: Arm, changes: Sequence[str], seed: int, settings: FindingsSettings, report: Report) -> Path:
    """Train an arm, and the start that it continues, unless they are there; return the folder of its model."""
    overrides = [f"common.seed={seed}", *settings.measuring.overrides]
    if arm.after is not None:
        start = _run_pipeline(settings.catalog.starts[arm.after], [], overrides, settings, seed, report)
        overrides.append(f"common.init_from={start.output_dir}")
    return _run_pipeline(arm.pipeline, changes, overrides, settings, seed, report).output_dir


def _run_pipeline(
    path: Path, changes: Sequence[str], overrides: Sequence[str], settings: FindingsSettings, seed: int, report: Report
) -> Pipeline:
    """Train the steps of a pipeline that are not finished."""
    pipeline = arm_pipeline(path, changes, overrides, settings, seed)
    for number, (step, recipe) in enumerate(pipeline.recipes.items(), start=1):
        if not _is_finished(recipe.output_dir):
            train(recipe, resume=True, on_log=report(f"{path.with_suffix('')} seed {seed} {number} {step}"))
        elif differing := recipe_changes(recipe):
            raise ValueError(
                f"{recipe.output_dir} was trained with another {', '.join(differing)}: choose another --out, or move it"
            )
    return pipeline


def arm_pipeline(
    path: Path, changes: Sequence[str], overrides: Sequence[str], settings: FindingsSettings, seed: int
) -> Pipeline:
    """Return the pipeline of an arm or start as it is trained.

    Raises:
        ValueError: The pipeline is invalid.
    """
    name = re.sub(r"[^\w.=-]+", "-", "-".join([path.with_suffix("").as_posix().replace("/", "-"), *changes]))
    where = settings.folder / f"seed-{seed}" / name
    given = [f"common.output_dir={where}", *overrides, *changes]
    source = settings.catalog.folder / path
    if (steps := settings.measuring.max_steps) is not None:
        given += [f"steps.{step}.max_steps={steps}" for step in load_pipeline(source, given).recipes]
    return load_pipeline(source, given)


def _is_finished(folder: Path) -> bool:
    log = read_log(folder / LOG_FILE)
    return bool(log) and log[-1]["step"] >= log[-1]["max_steps"] and (folder / "config.json").is_file()


def _measure(model: Path, arm: Arm, seed: int, settings: FindingsSettings) -> Measured:
    """Answer the benchmarks with a model; answers that are there already are kept."""
    image = arm.image_options
    setting = "-".join(str(value) for value in image.given().values()) or "trained"
    folder = model.parent / f"scores-{setting}"
    loaded, processor = load_pretrained(str(model))
    generator = Generator(loaded, processor, max_batch=16)
    values, tokens, seconds = {}, [], []
    for benchmark in settings.catalog.benchmarks:
        score = run_benchmark(generator, benchmark, limit=settings.measuring.limit, out=folder, **image.given())
        values[benchmark] = score.value if score.higher_is_better else -score.value
        tokens += [line["num_image_tokens"] for line in PredictionFile(folder, benchmark).read().values()]
        timing = json.loads((folder / f"{benchmark}.timing.json").read_text(encoding="utf-8"))
        seconds.append(timing["seconds"] / max(1, timing["samples"]))
    side = loaded.config.resolution or 4 * loaded.config.output_stride
    flops = model_cost(loaded.config, side, side).first_token.flops
    return Measured(seed, folder, values, statistics.mean(tokens), statistics.mean(seconds), flops / 1e9)


def _verdict(claim: Claim, measured: dict[str, list[Measured]], settings: FindingsSettings) -> Verdict:
    """Compare two arms on the same samples, seed by seed."""
    found = []
    for arm, than in zip(measured[claim.arm], measured[claim.than], strict=True):
        files = [PredictionFile(one.folder, claim.benchmark).path for one in (than, arm)]
        found.append(compare(files[0], files[1], allowed=["image", "prompt_format"]))
    differences = [one.difference for one in found]
    errors = [(one.interval[1] - one.interval[0]) / 3.92 for one in found]
    difference, error = statistics.mean(differences), pooled_error(differences, errors)
    interval = (difference - 1.96 * error, difference + 1.96 * error)
    values = [one.values[claim.benchmark] for name in (claim.arm, claim.than) for one in measured[name]]
    shows = judge(interval, claim.about_equal) if any(values) else "cannot be told"
    return Verdict(claim.text, claim.benchmark, claim.arm, claim.than, difference, interval, shows)


def pooled_error(differences: Sequence[float], errors: Sequence[float]) -> float:
    """Return the standard error of a mean difference over seeds, from the samples and between the seeds.

    Args:
        differences: Difference of each seed.
        errors: Standard error of each, from its samples.
    """
    count = len(differences)
    between = statistics.variance(differences) if count > 1 else 0.0
    return math.sqrt((statistics.mean(error**2 for error in errors) + between) / count)


def judge(interval: tuple[float, float], about_equal: bool) -> str:
    """Return whether a difference shows, from its interval: above 0, or around it where arms are about equal."""
    low, high = interval
    if about_equal:
        return "shows" if low <= 0 <= high else "does not show"
    return "shows" if low > 0 else "shows the opposite" if high < 0 else "does not show"


def _as_json(result: Result) -> dict[str, Any]:
    arms = {
        name: [{**asdict(one), "folder": str(one.folder)} for one in measured] for name, measured in result.arms.items()
    }
    verdicts = [asdict(verdict) for verdict in result.verdicts]
    return {"finding": result.name, "title": result.finding.title, "arms": arms, "verdicts": verdicts}
