"""The choice of a metric by the true answers, and figures over several answers."""

import pytest

from convllava.metrics import METRICS, choose_metric


@pytest.mark.parametrize(
    ("truths", "name"),
    [
        (["12.50", "yes"], "exact"),
        (["[0.10, 0.20, 0.30, 0.40]", "[0.00, 0.20, 0.30, 0.40]"], "iou"),
        (["[0.10, 0.20, 0.30, 0.40]", "none"], "exact"),
        (["a small red circle left of a large blue square"], "anls"),
        (["word " * 60], "cer"),
        (["yes"] * 9 + ["word " * 60], "cer"),
        (["yes"] * 19 + ["word " * 60], "exact"),
    ],
)
def test_the_answers_choose_the_metric(truths: list[str], name: str) -> None:
    assert choose_metric(truths).name == name


def test_figures() -> None:
    assert METRICS["exact"].value([("Red.", "red"), ("blue", "red")]) == 0.5
    assert METRICS["cer"].value([("", "a"), ("bbbbbbbbb", "bbbbbbbbb")]) == pytest.approx(0.1)
    assert (
        METRICS["iou"].value([("[0.00, 0.00, 1.00, 0.50]", "[0.00, 0.00, 1.00, 1.00]"), ("no", "[0, 0, 1, 1]")]) == 0.5
    )
    assert METRICS["anls"].value([("total 12", "total 13")]) == pytest.approx(1 - 1 / 8)


def test_no_answers_are_an_error() -> None:
    with pytest.raises(ValueError, match="exact match needs at least one answer"):
        METRICS["exact"].value([])
    with pytest.raises(ValueError, match="there are none"):
        choose_metric([])
