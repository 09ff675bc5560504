"""What every benchmark is: questions, how they are put, and how the answers are scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..metrics import Profile
from ..prompts import Part, PromptProfile
from ..sources import BenchmarkImage, Table, find_files, read_jsonl, read_parquet, read_tsv

Row = dict[str, Any]

KIT_URL = "https://opencompass.openxlab.space/utils/VLMEval"


@dataclass(frozen=True)
class EvalSample:
    """A question: ``row`` holds all but the images, and goes into the predictions file with the answer."""

    sample_id: str
    row: Row
    images: tuple[BenchmarkImage, ...]


class EvalSet(Protocol):
    """The questions of a benchmark, in order, and where they come from.

    Attributes:
        ids: Of the samples, each once.
        data: For the protocol: file, md5, whether it is known, how many questions.
        warnings: For whoever reads the score.
    """

    ids: Sequence[str]
    data: dict[str, Any]
    warnings: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EvalSample: ...

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (width, height) of each image of a sample, cheaply: batches are made by it."""
        ...


class ReadSet:
    """Questions that were read from a file."""

    def __init__(self, samples: Sequence[EvalSample], data: dict[str, Any], warnings: list[str]) -> None:
        self._samples = samples
        self.ids: Sequence[str] = [sample.sample_id for sample in samples]
        self.data = data
        self.warnings = warnings

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> EvalSample:
        return self._samples[index]

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        return [image.size for image in self._samples[index].images]


@dataclass(frozen=True)
class LoadOptions:
    """How a benchmark's files are read and its questions put.

    Attributes:
        prompts: Whose texts.
        ocr_tokens: Show TextVQA's OCR tokens, as LLaVA's own evaluation does and the paper does not.
        kit_compatible: Treat cells such as ``None`` and ``NA`` as missing, as VLMEvalKit does.
    """

    prompts: PromptProfile = "paper"
    ocr_tokens: bool = False
    kit_compatible: bool = False


@dataclass(frozen=True)
class Scoring:
    """How answers are judged.

    Attributes:
        profile: Of the extraction and the metrics.
        kit_compatible: Reproduce what VLMEvalKit does by mistake: predictions that an Excel file turns into
            ``nan``, MM-Vet's double counting.
    """

    profile: Profile = "paper"
    kit_compatible: bool = False


@dataclass(frozen=True)
class Record:
    """An answered question.

    Attributes:
        prediction: "" where there was an error.
        judgment: What a judge has said of it: a letter, Yes or No, or points.
    """

    sample_id: str
    row: Row
    prediction: str
    error: str | None = None
    judgment: str | float | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    Attributes:
        credit: From 0 to 1.
        extracted: What was read out of the answer, for people to look at.
        resolved: False where nothing could be read out of it.
    """

    credit: float
    extracted: str | None = None
    resolved: bool = True


Statistic = Callable[[np.ndarray], np.ndarray]
"""(..., k) sums over units to (...) values."""


@dataclass(frozen=True)
class Outcome:
    """All answers of a benchmark, judged.

    Attributes:
        verdicts: In the order of the records.
        units: Names of what is drawn in a bootstrap: samples, questions or images.
        columns: (units, k); the figure is ``statistic`` of their sums.
        per_category: Share or points of each category, in the figure's own unit.
        figures: Further numbers.
    """

    verdicts: list[Verdict]
    units: list[str]
    columns: np.ndarray
    statistic: Statistic
    per_category: dict[str, float]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The benchmark's figure."""
        return float(self.statistic(self.columns.sum(axis=0)))


def percent(sums: np.ndarray) -> np.ndarray:
    """Return 100 times the first column over the second."""
    return 100 * ratio(sums)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return the first column over the second; 0 where there is nothing."""
    whole = sums[..., 1]
    return np.divide(sums[..., 0], whole, out=np.zeros(whole.shape), where=whole != 0)


def mean_outcome(
    records: Sequence[Record],
    verdicts: list[Verdict],
    categories: Callable[[Row], Sequence[str]],
    statistic: Statistic = percent,
) -> Outcome:
    """Return the outcome of a benchmark whose figure is the mean credit."""
    columns = np.array([[verdict.credit, 1] for verdict in verdicts], dtype=float).reshape(-1, 2)
    sums: dict[str, np.ndarray] = {}
    for record, own in zip(records, columns, strict=True):
        for name in categories(record.row):
            sums[name] = sums.get(name, np.zeros(2)) + own
    per_category = {name: float(statistic(own)) for name, own in sums.items()}
    return Outcome(verdicts, [record.sample_id for record in records], columns, statistic, per_category)


class Benchmark:
    """A benchmark; one of each kind is in ``BENCHMARKS`` by its name.

    Attributes:
        name: On the command line and in file names.
        title: For tables.
        file: Name of VLMEvalKit's TSV without its ending.
        hub: Dataset id on the hub, with the split and, where there is one, the configuration.
        columns: That the TSV must have.
        size: Questions of the whole set.
        known_md5: Of files that figures have been published with.
        metric: Name of the figure.
        judge: What a judge can do here: "choice", "yes_no", "points" or nothing.
        needs_judge: Whether there is no figure without one.
        own_prompt_format: Use the checkpoint's own prompt format under every profile.
        unit: What is drawn in a bootstrap.
    """

    name: str = ""
    title: str = ""
    file: str = ""
    hub: str = ""
    hub_config: str | None = None
    hub_split: str = "test"
    columns: tuple[str, ...] = ("question", "answer")
    size: int | None = None
    known_md5: frozenset[str] = frozenset()
    url: str = ""
    metric: str = "accuracy"
    higher_is_better: bool = True
    judge: str | None = None
    needs_judge: bool = False
    own_prompt_format: bool = False
    unit: str = "samples"

    def load(self, data: Path, options: LoadOptions) -> EvalSet:
        """Read the questions.

        Raises:
            ValueError: There is no file of this benchmark below ``data``, or it is damaged.
        """
        table = self.read(data, options)
        samples = [self.sample(row, images) for row, images in zip(table.rows, table.images, strict=True)]
        samples = [sample for sample in samples if self.keeps(sample.row)]
        if not samples:
            raise ValueError(f"{table.path} holds no questions of {self.title}")
        for sample in samples:
            self._check_prompt(table, sample, options)
        return ReadSet(samples, self.describe(table, len(samples)), self.check(table, len(samples)))

    def paths(self, data: Path) -> list[Path]:
        """Return the file of this benchmark below a folder, or its shards; empty if there is none."""
        return find_files(data, self.file, self.hub, self.hub_config, self.hub_split)

    def is_there(self, data: Path) -> bool:
        """Tell whether the questions can be loaded."""
        return bool(self.paths(data))

    def read(self, data: Path, options: LoadOptions) -> Table:
        """Return the rows of whichever file is there."""
        paths = self.paths(data)
        if not paths:
            raise ValueError(self.missing(data))
        kit = options.kit_compatible
        if paths[0].suffix == ".tsv":
            return read_tsv(paths[0], self.columns, kit_compatible=kit)
        if paths[0].suffix == ".jsonl":
            return read_jsonl(paths[0], self.columns, [paths[0].parent, data], kit_compatible=kit)
        return read_parquet(paths, self.from_hub, kit_compatible=kit)

    def sample(self, row: Row, images: tuple[BenchmarkImage, ...]) -> EvalSample:
        """Make a question of a row."""
        return EvalSample(str(row["index"]), row, images)

    def keeps(self, row: Row) -> bool:
        """Tell whether a row belongs to the split that is scored."""
        return True

    def from_hub(self, row: Row) -> Row | None:
        """Return a row of the hub with the columns of the TSV, or None to leave it out."""
        raise ValueError(f"{self.title} is not read from parquet: use the TSV or JSONL")

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        """Return the prompt of a row."""
        raise NotImplementedError

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        """Return the longest answer; None for as many as fit, at most the default."""
        return 2048 if prompts == "current" else 512

    def prompt_format(self, prompts: PromptProfile) -> str:
        """Return the conversation format of a profile."""
        return "vicuna_v1" if prompts == "llava" else "llava_v1"

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        """Judge one answer."""
        raise NotImplementedError

    def categories(self, row: Row) -> Sequence[str]:
        """Return the categories that a row counts for."""
        return ()

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        """Judge all answers; by default the figure is the mean credit."""
        return mean_outcome(records, [self.verdict(record, scoring) for record in records], self.categories)

    def describe(self, table: Table, count: int) -> dict[str, Any]:
        """Return what the protocol says of the data."""
        return {
            "file": table.path.name,
            "md5": table.md5,
            "md5_known": table.md5 in self.known_md5,
            "questions": count,
        }

    def check(self, table: Table, count: int) -> list[str]:
        """Return warnings about data that figures have not been published with."""
        warnings = list(table.warnings)
        if table.md5 not in self.known_md5:
            warnings.append(
                f"the md5 of {table.path.name} ({table.md5}) is not one that published figures are known to come from"
            )
        if self.size is not None and count != self.size:
            warnings.append(f"{table.path.name} has {count} questions, {self.title} has {self.size}")
        return warnings

    def missing(self, data: Path) -> str:
        """Say where this benchmark's file was looked for and where to get it."""
        hub = self.hub.rsplit("/", 1)[-1]
        source = self.url or f"{KIT_URL}/{self.file}.tsv"
        return (
            f"no data of {self.title} below {data}: neither {self.file}.tsv nor {self.file}.jsonl nor "
            f"{hub}/**/{self.hub_split}-*.parquet. Download {source} (or {self.hub} from the hub) and give its folder "
            "as --data"
        )

    def _check_prompt(self, table: Table, sample: EvalSample, options: LoadOptions) -> None:
        try:
            self.parts(sample.row, len(sample.images), options)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{table.path}, index {sample.sample_id}: {error}") from error


def kit_prediction(record: Record, scoring: Scoring) -> str:
    """Return a prediction as it is scored: as it is, or as an Excel file gives it back (``kit_compatible``)."""
    from ..sources.cells import KIT_MISSING

    if record.error is not None or not scoring.kit_compatible:
        return record.prediction
    if record.prediction in KIT_MISSING:
        return "nan"
    return "0" if record.prediction.startswith("=") else record.prediction
