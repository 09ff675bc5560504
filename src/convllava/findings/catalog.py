"""The catalog of findings: what the paper states, the arms that show it in miniature, and what is expected of them."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from ..eval.paper import row_of
from ..image_options import ImageOptions
from ..support import did_you_mean
from ..train.architecture import Strict
from ..train.recipe import ImageSettings
from ..train.recipe_files import explain

CATALOG = "findings.yaml"
"""Name of the catalog in its folder."""


class Arm(Strict):
    """One arm of a comparison.

    Attributes:
        pipeline: Pipeline that trains it, relative to the catalog; arms with the same pipeline share its model.
        after: Name of the start, a pipeline of the catalog's ``starts``, whose model it continues; None if none.
        image: Preprocessing of images when it is measured; that of the checkpoint by default.
        line: Name of the line that joins it with other arms in a plot over visual tokens; empty for none.
    """

    pipeline: Path
    after: str | None = None
    image: ImageSettings = ImageSettings()
    line: str = ""

    @property
    def image_options(self) -> ImageOptions:
        """The preprocessing of images when the arm is measured."""
        return self.image.options


class Claim(Strict):
    """An expected difference between two arms, as the paper found it.

    Attributes:
        text: The statement of the paper.
        arm: Name of the arm that is expected to be better.
        than: Name of the arm that it is compared with.
        benchmark: Benchmark on which they are compared.
        about_equal: Whether the two are expected to be about equal instead.
    """

    text: str
    arm: str
    than: str
    benchmark: str
    about_equal: bool = False


class Finding(Strict):
    """One finding of the paper.

    Attributes:
        title: The finding in a few words.
        paper: The section or table of the paper that states it, and its figures.
        rows: Rows of the paper's tables that it is about, as ``tableN/ROW``.
        arms: Arms by name.
        claims: Expected differences.
        missing: Arms that the package cannot train, and why; empty if all are there.
    """

    title: str
    paper: str
    rows: list[str] = []
    arms: dict[str, Arm] = Field(min_length=1)
    claims: list[Claim] = []
    missing: str = ""

    @model_validator(mode="after")
    def _names_exist(self) -> "Finding":
        for claim in self.claims:
            for name in (claim.arm, claim.than):
                if name not in self.arms:
                    raise ValueError(f"a claim is about the arm {name!r}{did_you_mean(name, self.arms)}")
        for row in self.rows:
            try:
                row_of(row)
            except (KeyError, ValueError) as error:
                raise ValueError(f"the paper has no row {row!r}") from error
        return self


class Measuring(Strict):
    """How arms are trained and measured.

    Attributes:
        seeds: Number of seeds.
        limit: Number of samples of each benchmark; None for all.
        overrides: Values in place of those of all pipelines, such as ``common.global_batch_size=8``.
        max_steps: Steps of each training run; None for the pipelines' own.
    """

    seeds: int = Field(ge=1)
    limit: int | None = Field(default=None, ge=1)
    overrides: list[str] = []
    max_steps: int | None = Field(default=None, ge=1)


class Catalog(Strict):
    """All findings.

    Attributes:
        folder: Folder of the catalog.
        benchmarks: Benchmarks of every arm, on held-out samples.
        starts: Pipelines by name that train what arms continue.
        full: How the findings are measured.
        quick: How they are tried out.
        findings: Findings by name.
    """

    folder: Path
    benchmarks: list[str] = Field(min_length=1)
    starts: dict[str, Path] = {}
    full: Measuring
    quick: Measuring
    findings: dict[str, Finding] = Field(min_length=1)

    def choose(self, names: list[str]) -> dict[str, Finding]:
        """Return findings by name; all without names.

        Raises:
            ValueError: A name is unknown.
        """
        for name in names:
            if name not in self.findings:
                raise ValueError(
                    f"no finding {name!r}: one of {', '.join(self.findings)}{did_you_mean(name, self.findings)}"
                )
        return {name: self.findings[name] for name in names or self.findings}


def load_catalog(folder: Path) -> Catalog:
    """Load the catalog of a folder and check that its pipelines exist.

    Raises:
        ValueError: It is missing or invalid, or names a pipeline or start that does not exist.
    """
    path = folder / CATALOG
    if not path.is_file():
        raise ValueError(f"no {path}: give the folder of the findings' recipes with --recipes")
    try:
        values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        catalog = Catalog.model_validate({**values, "folder": folder})
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: " + "; ".join(map(explain, error.errors()))) from error
    arms = [(name, arm) for finding in catalog.findings.values() for name, arm in finding.arms.items()]
    for name, arm in arms:
        if arm.after is not None and arm.after not in catalog.starts:
            raise ValueError(f"{path}: arm {name!r} comes after {arm.after!r}, which is not among starts")
    for pipeline in {*catalog.starts.values(), *(arm.pipeline for _, arm in arms)}:
        if not (folder / pipeline).is_file():
            raise ValueError(f"{path}: no pipeline {folder / pipeline}")
    return catalog
