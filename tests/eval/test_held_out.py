"""The held-out samples are the recorded ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convllava.eval import LoadOptions, find_benchmark, held_out
from convllava.eval.benchmarks.synthetic import NUM_HELD_OUT, SYNTHETIC
from convllava.synthetic import SyntheticDataset

SOME = (0, 1, 2, 137, 250, 383, 499)

WAY_OUT = "the generator changed: if intended, write the record again with `python benchmarks/held_out.py --write`"


@pytest.mark.parametrize("name", SYNTHETIC)
def test_some_samples_are_the_recorded_ones(name: str) -> None:
    assert held_out.differences(name, SYNTHETIC[name].dataset(), SOME) == [], WAY_OUT


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTHETIC)
def test_all_samples_are_the_recorded_ones(name: str) -> None:
    assert held_out.differences(name, SYNTHETIC[name].dataset(), range(NUM_HELD_OUT)) == [], WAY_OUT


def test_digests_are_unique() -> None:
    """A digest that did not depend on texts and pixels would occur twice."""
    for name in SYNTHETIC:
        known = held_out.recorded(name)
        assert len(known) == NUM_HELD_OUT
        assert len(set(known)) == NUM_HELD_OUT
        assert len({pixels for _, pixels in known}) == NUM_HELD_OUT


def test_a_digest_depends_on_every_pixel_and_letter() -> None:
    sample = SyntheticDataset("line", count=1)[0]
    texts, pixels = held_out.digest_of(sample)
    image: Any = sample.images[0].copy()
    red, green, blue = image.getpixel((3, 3))
    image.putpixel((3, 3), (red, green, (blue + 1) % 256))
    assert held_out.digest_of(replace(sample, images=(image,)))[0] == texts
    assert held_out.digest_of(replace(sample, images=(image,)))[1] != pixels
    answer = {"role": "assistant", "content": [{"type": "text", "text": "another"}]}
    changed = held_out.digest_of(replace(sample, messages=[sample.messages[0], answer]))
    assert changed[0] != texts
    assert changed[1] == pixels


def test_a_run_on_other_samples_has_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(held_out.RECORD.read_text())
    first, rest = content["samples"]["synthetic-lines"].split(" ", 1)
    content["samples"]["synthetic-lines"] = f"{first[:-1]}{'0' if first[-1] != '0' else '1'} {rest}"
    content["drawn_with"]["pillow"] = "9.9"
    (tmp_path / "record.json").write_text(json.dumps(content))
    monkeypatch.setattr(held_out, "RECORD", tmp_path / "record.json")
    (warning,) = find_benchmark("synthetic-lines").load(tmp_path, LoadOptions()).warnings
    assert "1 of 3 checked samples differ in pixels from the recorded ones" in warning
    assert "recorded with pillow 9.9" in warning
    assert find_benchmark("synthetic-scenes").load(tmp_path, LoadOptions()).warnings == []
    del content["samples"]["synthetic-scenes"]
    (tmp_path / "shorter.json").write_text(json.dumps(content))
    monkeypatch.setattr(held_out, "RECORD", tmp_path / "shorter.json")
    with pytest.raises(ValueError, match=r"shorter.json has no samples of synthetic-scenes: write it again"):
        held_out.differences("synthetic-scenes", SYNTHETIC["synthetic-scenes"].dataset(), [0])
