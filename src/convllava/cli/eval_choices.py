"""What the options of ``convllava eval`` ask for."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..eval.judge import Judge

KEY_VARIABLES = ("CONVLLAVA_JUDGE_KEY", "OPENAI_API_KEY")


def chosen_benchmarks(benchmark: str, suite: str) -> list[str]:
    """Return the names of the benchmarks that are asked for; without any wish the synthetic ones.

    Raises:
        ValueError: Unknown names, or a suite beside names.
    """
    from ..eval.benchmarks import find_benchmark
    from ..eval.paper import SUITES

    if benchmark and suite:
        raise ValueError("give either --benchmark or --suite")
    if not benchmark:
        suite = suite or "synthetic"
        if suite not in SUITES:
            raise ValueError(f"no suite {suite!r}: one of {', '.join(SUITES)}")
        return SUITES[suite]
    return list(dict.fromkeys(find_benchmark(name).name for name in words(benchmark)))


def chosen_settings(suite: str, image: dict[str, Any], out: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folders of a run and how images are shown for each: one, or the three of Table 7."""
    from ..eval.paper import SETTINGS_OF_TABLE_7

    if suite != "table7":
        return [(out, image)]
    if any(value is not None for value in image.values()):
        raise ValueError("--suite table7 sets --image-aspect-ratio and --resolution itself: leave them out")
    return [(out / name, {**image, **setting}) for name, setting in SETTINGS_OF_TABLE_7.items()]


def chosen_profiles(profile: str, prompts: str | None, kit_compatible: bool) -> tuple[Any, str]:
    """Return how answers are scored, and whose texts are used.

    Raises:
        ValueError: An unknown profile.
    """
    from ..eval.benchmarks import Scoring
    from ..eval.metrics import PROFILES
    from ..eval.prompts import PROMPT_PROFILES

    if profile == "llava":  # it changes prompts only
        profile, prompts = "paper", prompts or "llava"
    texts = prompts or profile
    if profile not in PROFILES:
        raise ValueError(f"--profile must be one of {', '.join((*PROFILES, 'llava'))}, got {profile!r}")
    if texts not in PROMPT_PROFILES:
        raise ValueError(f"--prompts must be one of {', '.join(PROMPT_PROFILES)}, got {texts!r}")
    return Scoring(profile, kit_compatible), texts


def make_judge(url: str | None, model: str | None, prompts: Path | None, folder: Path) -> "Judge | None":
    """Return a judge, or None where nobody asks for one.

    Raises:
        ValueError: Only one of URL and model name.
    """
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise ValueError("a judge needs both --judge-url and --judge-model")
    from ..eval.judge import Endpoint, Judge

    key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
    return Judge(Endpoint(url, model, key), model, folder / "judge.jsonl", prompts)


def check_data(names: list[str], data: Path | None, prompts: str, ocr_tokens: bool, kit_compatible: bool) -> None:
    """Find every benchmark's file before a model is loaded.

    Raises:
        ValueError: One is missing.
    """
    from ..eval.benchmarks import find_benchmark
    from ..eval.sources import default_folder

    folder = data or default_folder()
    missing = [own.missing(folder) for own in map(find_benchmark, names) if not own.is_there(folder)]
    if missing:
        more = f" ({len(missing) - 1} more benchmarks are missing too)" if len(missing) > 1 else ""
        raise ValueError(missing[0] + more)


def words(text: str) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str) -> list[int]:
    """Split at commas into whole numbers.

    Raises:
        ValueError: Something else.
    """
    for word in words(text):
        if not word.isdecimal():
            raise ValueError(f"{word!r} is not a whole number of at least 0")
    return [int(word) for word in words(text)]
