"""``data stats`` counts upright shapes and the model's visual tokens."""

import json
from pathlib import Path

import pytest
from PIL import Image

from convllava.data.conversations import ConversationDataset
from convllava.data.stats import as_json, measure, tokens_by_policy
from convllava.data.stats_plots import write_plots


@pytest.fixture
def dataset(tmp_path: Path) -> ConversationDataset:
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    lying = Image.Exif()
    lying[0x0112] = 6  # a camera held upright
    Image.new("RGB", (90, 60)).save(tmp_path / "tall.jpg", exif=lying)
    (tmp_path / "bad.png").write_text("x")
    images = [["wide.png"], ["tall.jpg"], ["wide.png", "tall.jpg"], [], ["bad.png"]]
    turns = [
        [{"from": "human", "value": "<image>" * len(names) + "?"}, {"from": "gpt", "value": "yes"}] for names in images
    ]
    records = [{"image": names, "conversations": talk} for names, talk in zip(images, turns, strict=True)]
    (tmp_path / "data.json").write_text(json.dumps(records))
    return ConversationDataset(tmp_path / "data.json")


def test_counts(dataset: ConversationDataset) -> None:
    statistics = measure(dataset.records(), jobs=2)
    assert statistics.sizes == {(100, 200): 2, (90, 60): 2}
    assert (statistics.samples, statistics.text_only, statistics.unreadable) == (4, 1, 1)
    assert statistics.text_lengths == [4, 4, 4, 4]

    def refuse_tall(height: int, width: int) -> int:
        if height > width:
            raise ValueError("too tall")
        return height * width // 1000

    by_policy = tokens_by_policy(statistics, {"area": lambda height, width: height * width // 100, "wide": refuse_tall})
    found = as_json(statistics, by_policy)
    assert found["visual_tokens"]["area"]["max"] == 200 and found["visual_tokens"]["area"]["min"] == 54
    assert found["visual_tokens"]["wide"] | {"mean": 20.0, "refused": 2} == found["visual_tokens"]["wide"]
    assert (found["aspect_ratio"]["min"], found["aspect_ratio"]["max"]) == (pytest.approx(2 / 3), 2)


def test_plots(dataset: ConversationDataset, tmp_path: Path) -> None:
    statistics = measure(dataset.records())
    by_policy = tokens_by_policy(statistics, {"a <b>": lambda height, width: height * width // 100})
    written = write_plots(tmp_path / "out", statistics, by_policy, "data & more")
    for path in written[:-1]:
        with Image.open(path) as plot:
            assert plot.width > 400 and len(set(plot.convert("L").resize((60, 60)).tobytes())) > 5
    page = written[-1].read_text()
    assert "data &amp; more" in page and "a &lt;b&gt;" in page and page.count("data:image/png") == 4
