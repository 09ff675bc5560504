"""The size chosen for an image, and the limits that it keeps, for images of any size."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig

from convllava.analysis import Policy, allows_auto, choose_size, policies, tokens_in_context, tokens_in_time
from convllava.analysis.budget import context_of
from convllava.analysis.calibration import Calibration
from convllava.analysis.compare import Budget, Comparison
from convllava.image_options import ImageOptions
from convllava.model import ConvLlavaConfig, nano, preset

SIDES = st.integers(20, 5000)
NANO = nano(stages=5)
RELEASED = preset("convllava-7b-768")


def calibration(**values: Any) -> Calibration:
    facts = {"model": "nano", "key": "k", "device": "cpu", "dtype": "float32", "threads": 1, "torch_version": "2"}
    times: dict[str, Any] = {"prepare": (0.0, 0.01, 0.01), "encode": (0.01, 0.2), "prefill": (0.002, 0.05, 0.01)}
    return Calibration(**(facts | {"date": "2026-01-01"} | times | values))


class TestChoose:
    @pytest.mark.parametrize(("size", "aspect"), [((1000, 1100), None), ((1000, 1240), None), ((1000, 1250), "native")])
    def test_square_near_one_to_one_and_native_for_elongated(self, size: tuple[int, int], aspect: str | None) -> None:
        choice = choose_size([size], RELEASED)
        assert choice.options.image_aspect_ratio == aspect
        assert choice.shapes == (((768, 768) if aspect is None else (704, 832)),)
        assert "Table 7" in choice.reason

    def test_native_has_the_trained_resolution_as_short_side_within_the_trained_tokens(self) -> None:
        choice = choose_size([(2000, 800)], RELEASED, ImageOptions(max_visual_tokens=10_000))
        assert choice.options == ImageOptions("native") and choice.shapes == ((1920, 768),)
        assert choice.visual_tokens == 30 * 12 and not choice.shrunk
        within = choose_size([(2000, 800)], RELEASED)
        assert within.options == ImageOptions("native", max_visual_tokens=144) and within.shapes == ((1152, 512),)
        assert within.shrunk and "shrunk from 360 to at most 144 tokens, the most in its training" in within.reason

    def test_one_elongated_image_of_several_decides(self) -> None:
        choice = choose_size([(500, 500), (300, 900)], RELEASED)
        assert choice.options.image_aspect_ratio == "native" and len(choice.shapes) == 2

    def test_a_model_trained_on_any_shape_changes_nothing(self) -> None:
        choice = choose_size([(640, 130)], NANO)
        assert choice.options == ImageOptions() and choice.shapes == ((640, 128),) and choice.visual_tokens == 20

    def test_a_wished_aspect_ratio_is_kept(self) -> None:
        assert choose_size([(2000, 500)], RELEASED, ImageOptions("pad")).shapes == ((768, 768),)
        assert choose_size([(500, 500)], RELEASED, ImageOptions("native")).options.image_aspect_ratio == "native"
        assert choose_size([(130, 500)], NANO, ImageOptions("pad")).shapes == ((512, 512),)

    def test_an_encoder_of_one_shape_is_left_alone(self) -> None:
        vision_config = CLIPVisionConfig(image_size=336, patch_size=14)
        config = ConvLlavaConfig(vision_config=vision_config, text_config=NANO.text_config, resolution=336)
        assert choose_size([(100, 900)], config).shapes == ((336, 336),)

    @given(SIDES, SIDES, st.integers(1, 900), st.sampled_from([NANO, RELEASED]))
    def test_a_budget_is_kept_and_only_shrinks(
        self, height: int, width: int, most: int, config: ConvLlavaConfig
    ) -> None:
        unlimited = ImageOptions(max_visual_tokens=1 << 20)  # in place of the limit of the training
        within = choose_size([(height, width)], config, unlimited, token_limit=most)
        try:
            free = choose_size([(height, width)], config, unlimited)
        except ValueError as error:  # so thin that it would become an enormous image
            assert "set max_visual_tokens" in str(error) and within.shrunk and within.visual_tokens <= most
            return
        assert within.visual_tokens <= min(most, free.visual_tokens)
        assert within.shrunk == (free.visual_tokens > most)
        if not within.shrunk:
            assert within.shapes == free.shapes and within.options == free.options

    @given(st.integers(600, 3000), st.integers(600, 3000), st.integers(60, 400))
    def test_a_shrunk_image_uses_its_budget_and_keeps_its_shape(self, height: int, width: int, most: int) -> None:
        choice = choose_size([(height, width)], NANO, token_limit=most)
        if choice.shrunk:
            ((rows, columns),) = [(h // 64, w // 64) for h, w in choice.shapes]
            # one row or column more at this shape would be too much
            assert (rows + 1) * (columns + 1) > most
            assert 0.5 < (rows / columns) / (height / width) < 2

    def test_images_stay_within_the_sizes_of_the_training(self) -> None:
        config = nano(stages=5)
        config.trained_visual_tokens = [12, 35]
        large = choose_size([(4000, 3000)], config)
        assert large.visual_tokens == 35 and large.shapes == ((448, 320),)
        assert "shrunk from 2961 to at most 35 tokens, the most in its training" in large.reason
        small = choose_size([(50, 130)], config)
        assert small.shapes == ((128, 384),) and small.enlarged and not small.shrunk
        assert "enlarged from 3 to about 12 tokens, the fewest in its training" in small.reason
        fits = choose_size([(300, 256)], config)
        assert fits.options == ImageOptions() and not (fits.shrunk or fits.enlarged)

    def test_a_wished_budget_replaces_that_of_the_training(self) -> None:
        config = nano(stages=5)
        config.trained_visual_tokens = [12, 35]
        more = choose_size([(4000, 3000)], config, ImageOptions(max_visual_tokens=100))
        assert 90 <= more.visual_tokens <= 100 and "training" not in more.reason
        assert choose_size([(50, 130)], config, ImageOptions(max_visual_tokens=4)).visual_tokens <= 4
        assert choose_size([(4000, 3000)], config, token_limit=9).visual_tokens <= 9

    def test_no_image(self) -> None:
        with pytest.raises(ValueError, match="no image"):
            choose_size([], NANO)


def test_only_models_of_any_size_choose_by_themselves() -> None:
    assert allows_auto(NANO)
    assert not any(allows_auto(preset(f"convllava-7b-{side}")) for side in (768, 1024, 1536))


def test_policies_cover_trained_padded_native_and_budgets() -> None:
    found = policies(RELEASED, [512], [100])
    assert [policy.name for policy in found] == [
        "as trained (pad, 768)",
        "pad 512",
        "native 512",
        "native, own size",
        "native, 100 tokens",
    ]
    shapes = [policy.shape(640, 1280, RELEASED) for policy in found]
    assert shapes == [(768, 768), (512, 512), (512, 1024), (640, 1280), (448, 896)]


class TestBudgets:
    def test_context(self) -> None:
        assert context_of(NANO) == 2048
        assert tokens_in_context(NANO, text_tokens=48, reserved=500) == 1500
        assert tokens_in_context(NANO, text_tokens=48, reserved=500, images=4) == 375
        assert tokens_in_context(NANO, text_tokens=3000, reserved=500) == 1

    @given(st.floats(0.1, 3), st.integers(1, 3), SIDES, SIDES)
    def test_the_most_tokens_in_time_are_the_most(self, seconds: float, images: int, height: int, width: int) -> None:
        known = calibration(prepare=(0.0, 1e-4, 1e-4))

        def estimate(tokens: int) -> float:
            return known.first_token_seconds(
                (height, width), (64, 64 * tokens), visual_tokens=tokens, text_tokens=9, images=images
            )

        most = tokens_in_time(known, seconds, source_size=(height, width), stride=64, text_tokens=9, images=images)
        assert estimate(most) <= seconds < estimate(most + 1)

    def test_a_time_that_cannot_be_kept_names_both(self) -> None:
        with pytest.raises(ValueError, match=r"in 5 ms .* at 1\d\d ms"):
            tokens_in_time(calibration(), 0.005, source_size=(3000, 4000), stride=64, text_tokens=9)


class TestComparison:
    def comparison(self, config: ConvLlavaConfig = NANO, **values: Any) -> Comparison:
        found = policies(config, [256, 4096], [16])
        return Comparison(config, found, text_tokens=50, new_tokens=10, dtype="float32", **values)

    def test_rows_have_what_the_processor_shows(self) -> None:
        rows = self.comparison(calibration=calibration()).costs((300, 500))
        by_name = {row.policy: row for row in rows}
        assert by_name["native, own size"].shape == (320, 512)
        cost = by_name["native, own size"].cost
        assert cost is not None and cost.visual_tokens == 40 and cost.prompt_tokens == 90
        seconds = by_name["native, own size"].seconds
        expected = 0.01 * 0.15 + 0.01 * 0.16384 + 0.01 + 0.2 * 0.16384 + 0.002 + 0.05 * 0.09 + 0.01 * 0.0081
        assert seconds == pytest.approx(expected)

    def test_what_does_not_fit_the_context_says_so(self) -> None:
        (row,) = [row for row in self.comparison().costs((300, 500)) if row.policy == "pad 4096"]
        assert row.note == "4156 tokens exceed the context of 2048"

    def test_what_is_refused_says_so(self) -> None:
        (row,) = [row for row in self.comparison().costs((1, 5000)) if row.policy == "native 4096"]
        assert row.cost is None and "more than the" in row.note

    def test_the_pick_keeps_every_budget(self) -> None:
        size = (4000, 3000)
        free, choice = self.comparison().pick(size)
        assert choice.shrunk and free.cost is not None and free.cost.visual_tokens <= 2048 - 60
        few, _ = self.comparison(budget=Budget(max_visual_tokens=30)).pick(size)
        assert few.cost is not None and few.cost.visual_tokens <= 30
        fast, _ = self.comparison(calibration=calibration(), budget=Budget(max_seconds=0.5)).pick(size)
        assert fast.seconds is not None and fast.seconds <= 0.5

    def test_totals_are_the_sums_of_the_rows(self) -> None:
        comparison, sizes = self.comparison(calibration=calibration()), [(100, 200), (640, 480), (900, 4000)]
        totals = comparison.totals(sizes)
        assert totals[-1].policy == "picked" and len(totals) == len(comparison.policies) + 1
        own = next(total for total in totals if total.policy == "native, own size")
        rows = [row for size in sizes for row in comparison.costs(size) if row.policy == "native, own size"]
        assert own.visual_tokens == sum(row.cost.visual_tokens for row in rows if row.cost)
        assert own.seconds == pytest.approx(sum(row.seconds or 0 for row in rows))
        unusable = next(total for total in totals if total.policy == "pad 4096")
        assert unusable.not_usable == 3 and unusable.images == 0

    def test_a_time_needs_a_calibration(self) -> None:
        with pytest.raises(ValueError, match="calibration"):
            self.comparison(budget=Budget(max_seconds=1.0))


def test_a_policy_leaves_out_what_it_does_not_say() -> None:
    assert Policy("x", {"max_visual_tokens": 4}).shape(640, 640, RELEASED) == (128, 128)
