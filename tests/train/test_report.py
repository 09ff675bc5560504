"""Charts of the report: round ticks that enclose the data, smoothing that is named, marks where points are few."""

import pytest

from convllava.train.report.charts import Series, draw, label, smoothing_window, ticks, trailing_mean


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 7.3, [0, 2, 4, 6, 8]),
        (0, 2.6e-4, [0, 1e-4, 2e-4, 3e-4]),
        (-1, 3, [-1, 0, 1, 2, 3]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 48_000, [0, 10_000, 20_000, 30_000, 40_000, 50_000]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_labels() -> None:
    assert [label(tick, [0, 0.5]) for tick in (0, 0.25, 0.5)] == ["0", "0.25", "0.5"]
    assert [label(tick, [0, 2e-4]) for tick in (0, 1e-4)] == ["0", "1e-4"]
    assert label(20_000, [0, 50_000]) == "20k"


def test_steps_of_a_short_run_are_whole() -> None:
    chart = draw("Loss", [Series("training", [(1, 3.0), (2, 2.0), (3, 1.5)])])
    assert [text for _, text in chart.columns] == ["1", "2", "3"]
    assert len(chart.series[0].marks) == 3 and chart.series[0].smooth == "" and chart.note == ""


def test_smoothing_is_a_named_mean_of_points_that_were_there() -> None:
    points = [(step, float(step)) for step in range(1, 101)]
    assert smoothing_window(100) == 5 and smoothing_window(20) == 1
    assert trailing_mean(points, 5)[0] == (5, 3.0)
    chart = draw("Loss", [Series("training", points, smoothing=True)])
    assert chart.note == "bold: mean of the last 5 of 100 points" and chart.series[0].smooth
