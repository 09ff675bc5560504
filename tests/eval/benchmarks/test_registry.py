"""Benchmarks are found by name, and missing data are named."""

from pathlib import Path

import pytest

from convllava.eval import LoadOptions, find_benchmark
from convllava.eval.benchmarks import ALL
from convllava.eval.benchmarks.synthetic import SYNTHETIC


def test_all_of_the_paper_other_documents_and_the_synthetic_ones_are_there() -> None:
    of_this_package = [own for own in ALL.values() if type(own).__module__.startswith("convllava.")]
    assert len(of_this_package) == 9 + 8 + 4 + len(SYNTHETIC)
    assert find_benchmark("TextVQA_VAL") is find_benchmark("textvqa")


@pytest.mark.parametrize("name", ["mme", "mmbench", "mmmu", "refcoco-testA"])
def test_the_message_for_missing_data_has_their_address(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data of .* below .*Download .*--data"):
        find_benchmark(name).load(tmp_path, LoadOptions())
