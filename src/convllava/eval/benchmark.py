"""The base class of all benchmarks: where its questions come from, how they are asked and how answers are scored.

A benchmark is one class in one file of ``benchmarks/``; most set attributes and implement :meth:`Benchmark.prompt` and
:meth:`Benchmark.verdict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..constants import Message
from .outcome import Outcome, Prediction, Row, Scoring, Verdict, mean_outcome
from .parquet import read_parquet
from .prompts import PromptPart, PromptProfile, images_of, user_message
from .table import BenchmarkImage, ImageSize, Table, find_files, read_jsonl
from .tsv import read_tsv

KIT_URL = "https://opencompass.openxlab.space/utils/VLMEval"
DEFAULT_MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class EvalSample:
    """A question with its images.

    Attributes:
        row: Everything but the images; it is stored with the prediction.
    """

    sample_id: str
    row: Row
    images: tuple[BenchmarkImage, ...]


class EvalSet(Protocol):
    """The questions of a benchmark, in order.

    Attributes:
        ids: Id of each sample, each once.
        data: Entry of the protocol: file, MD5 sum, whether it is a known one, number of questions.
        warnings: Notes for the readers of a score.
    """

    ids: Sequence[str]
    data: dict[str, Any]
    warnings: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EvalSample: ...

    def image_sizes(self, index: int) -> list[ImageSize]:
        """Return (height, width) of each readable image of a sample without decoding; batches are formed by size."""
        ...


class LoadedSet:
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

    def image_sizes(self, index: int) -> list[ImageSize]:
        return [image.size for image in self._samples[index].images if image.size is not None]


@dataclass(frozen=True)
class LoadOptions:
    """Options of the prompts.

    Attributes:
        prompts: Source of the prompts' texts.
        ocr_tokens: Whether TextVQA's OCR tokens are shown, as in LLaVA's own evaluation but not in the paper's.
    """

    prompts: PromptProfile = "paper"
    ocr_tokens: bool = False


class Benchmark:
    """A benchmark; subclasses set the attributes and override what differs.

    Attributes:
        name: Name on the command line and in file names.
        title: Name in tables and messages.
        file: Name of VLMEvalKit's TSV without its suffix; ``FILE.jsonl`` is read too.
        hub: Dataset id on the hub.
        hub_config: Configuration of the dataset on the hub, if it has several.
        hub_split: Split of the dataset on the hub.
        columns: Columns that the file must have.
        size: Number of questions; a file with another number gets a warning.
        known_md5: MD5 sums of the files that published figures come from; another file gets a warning.
        url: Address of the file; by default VLMEvalKit's.
        metric: Name of the figure.
        higher_is_better: Whether a higher figure is better.
        judge: Task of a judge model: "choice", "yes_no", "points" or None.
        needs_judge: Whether the benchmark cannot be scored without a judge.
        has_ocr_tokens: Whether OCR tokens can be shown (`LoadOptions.ocr_tokens`).
        keeps_prompt_format: Whether the checkpoint's own prompt format is used under every profile.
        needs_data: Whether the questions are read from a file.
        unit: What is scored as one: samples, or questions with all their rotations.
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
    has_ocr_tokens: bool = False
    keeps_prompt_format: bool = False
    needs_data: bool = True
    unit: str = "samples"

    # What a benchmark defines: prompt, longest answer, score.

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        """Return the prompt of a row."""
        raise NotImplementedError

    def messages(self, row: Row, num_images: int, options: LoadOptions) -> tuple[list[Message], list[int]]:
        """Return the messages of a row and the indices of their images; by default one message, the prompt."""
        prompt = self.prompt(row, num_images, options)
        return [user_message(prompt)], images_of(prompt)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        """Return the longest answer in tokens; None uses the generator's default."""
        return 2048 if prompts == "current" else DEFAULT_MAX_NEW_TOKENS

    def prompt_format(self, prompts: PromptProfile) -> str:
        """Return the prompt format of a profile."""
        return "vicuna_v1" if prompts == "llava" else "llava_v1"

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        """Score one prediction."""
        raise NotImplementedError

    def categories(self, row: Row) -> Sequence[str]:
        """Return the categories that a row counts for."""
        return ()

    def unit_of(self, prediction: Prediction) -> str:
        """Return the name of the unit of a prediction, as in `Outcome.units`."""
        return prediction.sample_id

    def shared_by(self, prediction: Prediction) -> dict[str, Sequence[str]]:
        """Return what a sample may share with others, which are drawn together in a bootstrap: by default its images.

        For predictions that do not name their images, these are the file's ``image_path``, if there is one.

        Returns:
            Names of what is shared, by a word for it in the plural, the largest last.
        """
        path = prediction.row.get("image_path") or []
        names = prediction.images or [str(name) for name in (path if isinstance(path, list) else [path])]
        return {"images": names} if names else {}

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        """Score all predictions; by default the figure is the mean credit in percent."""
        return mean_outcome(predictions, self.verdicts(predictions, scoring), self.categories)

    def verdicts(self, predictions: Sequence[Prediction], scoring: Scoring) -> list[Verdict]:
        """Score each prediction."""
        return [self.verdict(prediction, scoring) for prediction in predictions]

    # Reading: TSV, JSONL or the hub's parquet.

    def load(self, data: Path, options: LoadOptions) -> EvalSet:
        """Read the questions from the file in ``data``.

        Raises:
            ValueError: The file is missing or damaged.
        """
        table = self.read(data)
        samples = [self.make_sample(row, images) for row, images in zip(table.rows, table.images, strict=True)]
        samples = [sample for sample in samples if self.includes(sample.row)]
        if not samples:
            raise ValueError(f"{table.path} holds no questions of {self.title}")
        for sample in samples:
            self._check_prompt(table, sample, options)
        return LoadedSet(samples, self.describe_data(table, len(samples)), self.data_warnings(table, len(samples)))

    def paths(self, data: Path) -> list[Path]:
        """Return the file of this benchmark in a folder, or its shards; empty if there is none."""
        return find_files(data, self.file, self.hub, self.hub_config, self.hub_split)

    def has_data(self, data: Path) -> bool:
        """Return whether the questions can be loaded."""
        return bool(self.paths(data))

    def read(self, data: Path) -> Table:
        """Read the file as a table.

        Raises:
            ValueError: The file is missing or damaged.
        """
        paths = self.paths(data)
        if not paths:
            raise ValueError(self.missing_data(data))
        if paths[0].suffix == ".tsv":
            return read_tsv(paths[0], self.columns)
        if paths[0].suffix == ".jsonl":
            return read_jsonl(paths[0], self.columns, [paths[0].parent, data])
        return read_parquet(paths, self.from_hub)

    def make_sample(self, row: Row, images: tuple[BenchmarkImage, ...]) -> EvalSample:
        """Return the sample of a row."""
        return EvalSample(str(row["index"]), row, images)

    def includes(self, row: Row) -> bool:
        """Return whether a row belongs to the split that is scored."""
        return True

    def from_hub(self, row: Row) -> Row | None:
        """Return a row of the hub with the columns of the TSV; None leaves it out.

        Raises:
            ValueError: The row is damaged, or the benchmark is not read from parquet.
        """
        raise ValueError(f"{self.title} is not read from parquet: use the TSV or JSONL")

    def describe_data(self, table: Table, num_questions: int) -> dict[str, Any]:
        """Return the protocol's entry about the data."""
        return {
            "file": table.path.name,
            "md5": table.md5,
            "md5_known": table.md5 in self.known_md5,
            "questions": num_questions,
        }

    def data_warnings(self, table: Table, num_questions: int) -> list[str]:
        """Return warnings about data that differ from those of published figures."""
        warnings = list(table.warnings)
        if table.md5 not in self.known_md5:
            warnings.append(
                f"the md5 of {table.path.name} ({table.md5}) is not one that published figures are known to come from"
            )
        if self.size is not None and num_questions != self.size:
            warnings.append(f"{table.path.name} has {num_questions} questions, {self.title} has {self.size}")
        return warnings

    def source(self) -> dict[str, str | None] | None:
        """Return where the questions of own data are; None for benchmarks, which are in a folder of all of them."""
        return None

    def missing_data(self, data: Path) -> str:
        """Return the message for a folder without this benchmark's file."""
        hub = self.hub.rsplit("/", 1)[-1]
        source = self.url or f"{KIT_URL}/{self.file}.tsv"
        return (
            f"no data of {self.title} below {data}: neither {self.file}.tsv nor {self.file}.jsonl nor "
            f"{hub}/**/{self.hub_split}-*.parquet. Download {source} (or {self.hub} from the hub) and give its folder "
            "as --data"
        )

    def _check_prompt(self, table: Table, sample: EvalSample, options: LoadOptions) -> None:
        try:
            self.prompt(sample.row, len(sample.images), options)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{table.path}, index {sample.sample_id}: {error}") from error
