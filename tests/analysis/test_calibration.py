"""The fit, the file it is kept in, and a real measurement of a tiny model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model
from transformers import CLIPVisionConfig

from convllava.analysis import load_calibration, save_calibration
from convllava.analysis.calibration import Calibration, calibration_folder, calibration_key, fit, prefill_terms
from convllava.analysis.measure import QUICK, busy_warning, calibrate, jpeg, prepare_image
from convllava.model import ConvLlavaConfig, nano, preset

CPU = torch.device("cpu")
COEFFICIENTS = st.floats(0.01, 10)


class TestFit:
    @given(COEFFICIENTS, COEFFICIENTS, COEFFICIENTS)
    def test_exact_times_give_their_terms_back(self, fixed: float, linear: float, square: float) -> None:
        terms = [prefill_terms(tokens) for tokens in (10, 100, 500, 1000, 3000)]
        seconds = [float(np.dot(own, (fixed, linear, square))) for own in terms]
        assert fit(terms, seconds) == pytest.approx((fixed, linear, square), rel=1e-3)

    @given(st.lists(st.floats(1e-3, 1.0), min_size=4, max_size=4))
    def test_no_term_is_negative(self, seconds: list[float]) -> None:
        terms = [prefill_terms(tokens) for tokens in (10, 100, 1000, 3000)]
        assert all(coefficient >= 0 for coefficient in fit(terms, seconds))

    def test_a_term_that_does_not_matter_is_dropped(self) -> None:
        terms = [prefill_terms(tokens) for tokens in (100, 200, 400, 800)]
        seconds = [own[1] - 0.02 * own[2] for own in terms]  # slower than linear: no square could be positive
        assert fit(terms, seconds)[2] == 0.0


def test_a_tiny_model_is_measured_kept_and_found_again(tmp_path: Path) -> None:
    config = tiny_model()[0].config
    lines: list[str] = []
    plan = replace(
        QUICK, repeats=2, grids=[(1, 1), (2, 2)], held_out=[(1, 2), (40, 40)], lengths=[8, 16, 4096], sources=[(90, 70)]
    )
    result = calibrate(config, "tiny", device=CPU, dtype="float32", plan=plan, on_progress=lines.append)
    assert any(line.startswith("encoded 128x128") for line in lines)
    assert not any("4096 tokens" in line for line in lines)  # the context has 512
    (case,) = result.held_out  # 1600 tokens would not fit either
    assert case.shown_size == (64, 128) and case.measured_seconds > 0
    assert case.estimated_seconds == pytest.approx(
        result.first_token_seconds(case.source_size, (64, 128), visual_tokens=2, text_tokens=case.text_tokens)
    )
    assert result.worst_error == result.median_error == abs(case.error)
    path = save_calibration(result, tmp_path)
    assert load_calibration(config, CPU, "float32", tmp_path) == result
    assert load_calibration(config, CPU, "bfloat16", tmp_path) is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_seconds_add_up() -> None:
    facts = {
        "model": "m",
        "key": "k",
        "device": "d",
        "dtype": "float32",
        "threads": 1,
        "torch_version": "2",
        "date": "",
    }
    known = Calibration(**facts, prepare=(1.0, 2.0, 3.0), encode=(4.0, 5.0), prefill=(6.0, 7.0, 8.0))
    source, shown = (1000, 2000), (1000, 1000)
    alone = (1 + 2 * 2 + 3 * 1) + (4 + 5)
    once = known.first_token_seconds(source, shown, visual_tokens=900, text_tokens=100)
    assert once == pytest.approx(alone + 6 + 7 + 8)
    twice = known.first_token_seconds(source, shown, visual_tokens=900, text_tokens=200, images=2)
    assert twice == pytest.approx(2 * alone + 6 + 14 + 32)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / f"{calibration_key(nano(), CPU, 'float32')}.json"
    for text in ("{", "[]", "{}", '{"held_out": [{"x": 1}]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=path.name):
            load_calibration(nano(), CPU, "float32", tmp_path)


def test_the_key_tells_models_and_precisions_apart() -> None:
    keys = {
        calibration_key(config, CPU, dtype)
        for config in (nano(), nano(stages=5), preset("convllava-7b-768"))
        for dtype in ("float32", "bfloat16")
    }
    assert len(keys) == 6
    # the same work at another resolution
    assert calibration_key(preset("convllava-7b-1536"), CPU, "float32") in keys


def test_an_encoder_of_one_shape_has_nothing_to_fit() -> None:
    config = ConvLlavaConfig(vision_config=CLIPVisionConfig(), text_config=nano().text_config, resolution=224)
    with pytest.raises(ValueError, match="one size only"):
        calibrate(config, "clip", device=CPU, dtype="float32")


def test_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration_folder() == tmp_path / "convllava" / "calibration"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration_folder().parents[1].name == ".cache"


def test_a_busy_machine_gives_a_warning() -> None:
    assert busy_warning(0.5, cores=2) == "" and busy_warning(11.0, cores=16) == ""
    assert "load 3.0 on 2 cores" in busy_warning(3.0, cores=2)


def test_the_image_that_is_measured_is_a_real_one() -> None:
    data = jpeg(90, 130)
    assert data[:3] == b"\xff\xd8\xff"
    pixels = prepare_image(data, (64, 128))
    assert pixels.shape == (1, 3, 64, 128) and pixels.std() > 0.1
