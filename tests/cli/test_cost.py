"""`convllava cost` as a user sees it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.analysis import measure, save_calibration
from convllava.analysis.calibration import Calibration, HeldOut, calibration_key
from convllava.cli.cost_inputs import image_sizes, read_config
from convllava.cli.main import main
from convllava.inference.loading import load_pretrained


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, so that no stored calibration is found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cost(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command and return what it printed, parsed if it is JSON."""

    def run(*arguments: str) -> Any:
        assert main(["cost", *map(str, arguments)]) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        return json.loads(printed) if "--json" in arguments else printed

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> str:
        assert main(["cost", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
        return printed.err

    return run


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name, size in {"wide.png": (640, 128), "page.jpg": (500, 700), "square.png": (256, 250)}.items():
        Image.new("RGB", size).save(folder / name)
    return folder


@pytest.fixture
def calibrated(tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint with times of ten milliseconds a megapixel and more."""
    model, _ = load_pretrained(tiny_checkpoint, device="cpu")
    case = HeldOut((80, 80), (64, 64), 9, 0.02, 0.03)
    calibration = Calibration(
        model="tiny",
        key=calibration_key(model.config, model.device, "float32"),
        device="cpu",
        dtype="float32",
        threads=1,
        torch_version="2",
        date="2026-01-01",
        prepare=(0.0, 0.0, 0.0),
        encode=(0.010, 1.0),
        prefill=(0.001, 0.0, 0.0),
        held_out=(case,),
    )
    save_calibration(calibration)
    return tiny_checkpoint


def test_a_model_part_by_part(cost: Any) -> None:
    found = cost("convllava-7b-1536", "--dtype", "bfloat16", "--text-tokens", "0", "--json")
    assert found["visual_tokens"] == 576 and found["height"] == found["width"] == 1536
    assert found["first_token_flops"] / 1e12 == pytest.approx(11.44, abs=0.01)
    parts = {part["name"]: part for part in found["parts"]}
    assert sum(part["macs"] for part in parts.values()) * 2 == found["flops"]
    assert sum(part["parameters"] for part in parts.values()) == found["parameters"]
    assert round(parts["vision: stage 5"]["parameters"] / 1e6) == 473
    assert any("1 multiply-accumulate (MAC) = 2 FLOPs" in rule for rule in found["counting_rules"])
    assert found["first_token_seconds"] is None


def test_a_model_in_words(cost: Any) -> None:
    printed = cost("nano", "--height", "128", "--width", "192", "--new-tokens", "9")
    for words in (
        "nano on 192x128: 6 visual + 64 text tokens, 9 new",
        "vision: stage 5",
        "new tokens",
        "KV cache",
        "counting rules: 1 multiply-accumulate (MAC) = 2 FLOPs",
        "--calibrate --model nano",
    ):
        assert words in printed


def test_table_1_and_figure_2(cost: Any, tmp_path: Path) -> None:
    found = cost("--table1", "--figure2", "--out", tmp_path / "new", "--json")
    rows = [row for row in found["table1"] if row["system"] in ("OtterHD", "MiniGemini-HD")]
    assert [row["visual_tokens"] for row in rows] == [row["paper_tokens"] for row in rows] == [1225, 2880]
    assert {claim["paper"] for claim in found["claims"]} >= {"almost 8x", "6x (at 1536)"}
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["figure2.csv", "figure2.png", "figure2.svg", "table1.csv"]
    assert sorted(Path(path).name for path in found["files"]) == written
    assert "LLaVA-NeXT" in cost("--table1")


def test_an_image_under_every_policy(cost: Any, album: Path, tiny_checkpoint: Path) -> None:
    found = cost(album / "page.jpg", "--model", tiny_checkpoint, "--resolution", "256", "--budget", "20", "--json")
    (image,) = found["images"]
    tokens = {row["policy"]: row["visual_tokens"] for row in image["policies"]}
    assert tokens == {
        "as trained (native, own size)": 88,
        "pad 256": 16,
        "native 256": 4 * 5,
        "native, own size": 88,
        "native, 20 tokens": 20,
    }
    assert image["picked"]["options"] == {} and "any shape" in image["picked"]["reason"]


def test_a_folder_and_a_data_set(cost: Any, album: Path, tiny_checkpoint: Path) -> None:
    of_folder = cost(album, "--model", tiny_checkpoint, "--json")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    records = [
        {"id": str(i), "image": path.name, "conversations": turns} for i, path in enumerate(sorted(album.iterdir()))
    ]
    (album / "data.json").write_text(json.dumps(records))
    of_data = cost(album / "data.json", "--model", tiny_checkpoint, "--json")
    assert of_data["totals"] == of_folder["totals"]
    picked = of_folder["totals"][-1]
    assert picked["policy"] == "picked" and picked["images"] == 3
    assert picked["visual_tokens"] == 2 * 10 + 8 * 11 + 4 * 4
    assert "all images" in cost(album, "--model", tiny_checkpoint)


def test_budgets_shrink_the_pick(cost: Any, album: Path, calibrated: Path) -> None:
    arguments = (album / "page.jpg", "--model", calibrated, "--device", "cpu", "--json")
    few = cost(*arguments, "--max-visual-tokens", "12")["images"][0]["picked"]
    assert few["visual_tokens"] == 12
    fast = cost(*arguments, "--max-ttft-ms", "100")["images"][0]["picked"]
    assert 0.08 < fast["first_token_seconds"] <= 0.1
    assert fast["visual_tokens"] <= (0.1 - 0.011) * 1e6 / 64**2
    assert "shrunk from 88" in fast["reason"]


def test_times_come_with_their_error(cost: Any, album: Path, calibrated: Path) -> None:
    printed = cost(album / "square.png", "--model", calibrated, "--device", "cpu")
    assert "error on held-out images 50%" in printed
    assert "76.5 ms" in printed  # 10 + 65.536 + 1, for 256x256


def test_calibration_from_the_command_line(
    cost: Any, tiny_checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(measure.QUICK, repeats=1, grids=[(1, 1), (1, 2)], lengths=[8, 16], sources=[(90, 70)])
    monkeypatch.setattr(measure, "QUICK", plan)
    found = cost("--calibrate", "--quick", "--model", tiny_checkpoint, "--device", "cpu", "--json")
    assert Path(found["path"]).parent == cache / "convllava" / "calibration"
    assert json.loads(Path(found["path"]).read_text())["key"] == found["calibration"]["key"]
    assert len(found["calibration"]["held_out"]) >= 3 and found["median_error"] >= 0


def test_names_of_models(tiny_checkpoint: Path) -> None:
    assert read_config("convllava-7b-1024").resolution == 1024
    assert read_config("nano").vision_config.num_stages == 5  # the bundled one, not the preset
    assert read_config(str(tiny_checkpoint)).vision_config.hidden_sizes == [8, 8, 16, 16, 32]
    with pytest.raises(ValueError, match=r"unknown model 'nanoo'.*convllava-7b-768"):
        read_config("nanoo")


PUBLISHED = {
    "model_type": "llava",
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-5,
}


def test_an_official_checkpoint_is_counted_as_it_is(cost: Any, shared_dir: Path) -> None:
    folder = shared_dir / "reference" / "official-split-tiny"
    found = cost(folder, "--json")
    assert (found["height"], found["width"], found["visual_tokens"]) == (256, 256, 16)
    assert 0.7e6 < found["parameters"] < 0.8e6


@pytest.mark.parametrize(
    ("hub_id", "tower", "side", "tokens"),
    [
        ("ConvLLaVA/ConvLLaVA-sft-1536", "ConvLLaVA/ConvLLaVA-ConvNeXt-1536", 1536, 576),
        ("liuhaotian/llava-v1.5-7b", "openai/clip-vit-large-patch14-336", 336, 576),
    ],
)
def test_a_published_checkpoint_needs_no_weights(
    cost: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_id: str, tower: str, side: int, tokens: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PUBLISHED, "mm_vision_tower": tower}))
    monkeypatch.setattr("convllava.inference.checkpoint_files.snapshot_download", lambda *_, **__: str(tmp_path))
    found = cost(hub_id, "--json")
    assert (found["height"], found["visual_tokens"]) == (side, tokens)
    assert 6.9e9 < found["parameters"] < 7.6e9


def test_other_models_are_refused(fails: Any, tmp_path: Path) -> None:
    for model_type, words in {"bert": "holds a model of type 'bert'", "convnext": "a vision encoder alone"}.items():
        folder = tmp_path / model_type
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
        assert words in fails(folder)
        assert words in fails(tmp_path / "p.png", "--model", folder)
        assert words in fails("--calibrate", folder)


def test_names_that_look_like_files(fails: Any) -> None:
    assert "cannot be fetched from the hub" in fails("liuhaotian/llava-v1.5-7c")
    assert "did you mean 'convllava-7b-768'" in fails("convllava-7b-76")
    assert "it is not a model" in fails("convllava-7b")
    assert "album/photo.png does not exist" in fails("album/photo.png")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["nano", "--resolution", "768"], "--resolution"),
        (["nano", "--budget", "64"], "--budget"),
        (["nano", "--max-visual-tokens", "9"], "--max-visual-tokens"),
        (["convllava-7b-768", "--model", "convllava-7b-1024"], "--model convllava-7b-1024"),
        (["IMAGE", "--image-folder", "."], "--image-folder"),
        (["IMAGE", "--height", "64"], "--height"),
        (["IMAGE", "--table1"], "square.png"),
        (["IMAGE", "--quick"], "--quick"),
        (["IMAGE", "--out", "x"], "--out"),
    ],
)
def test_options_without_effect_are_refused(fails: Any, album: Path, arguments: list[str], option: str) -> None:
    image = str(album / "square.png")
    assert f"{option} has no effect here" in fails(*(image if word == "IMAGE" else word for word in arguments))


def test_a_prompt_beyond_the_context_is_said(cost: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = cost("convllava-7b-1536", "--text-tokens", "100000", "--json")
    assert found["warnings"] == ["100577 tokens exceed the context of 4096, so convllava-7b-1536 cannot answer this"]


def test_images_of_all_kinds(album: Path, tmp_path: Path) -> None:
    Image.new("RGB", (72, 36)).save(tmp_path / "p.pdf", resolution=72)
    found = dict(image_sizes([str(album / "wide.png"), str(tmp_path / "p.pdf"), str(album)]))
    assert found[str(album / "wide.png")] == (128, 640) and len(found) == 4
    assert found[str(tmp_path / "p.pdf")] == (72, 144)


def test_bad_input(fails: Any, album: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert "nothing to count" in fails()
    assert "--height and --width" in fails("nano")
    assert "nope.png does not exist" in fails("nope.png")
    assert "height 63 and width 64" in fails("nano", "--height", "63", "--width", "64")
    assert "'int3'" in fails("nano", "--dtype", "int3", "--height", "64")
    assert "--calibrate --model" in fails(album / "page.jpg", "--model", tiny_checkpoint, "--max-ttft-ms", "5")
    assert "takes one model, got 2" in fails("--calibrate", "nano", "nano")
    assert "unknown model 'nanoo'" in fails(album / "page.jpg", "--model", "nanoo")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in fails(tmp_path / "empty")
    (album / "broken.png").write_text("no image")
    assert "broken.png is not an image" in fails(album)
    (tmp_path / "bad.json").write_text("[{}]")
    assert "bad.json, record 0" in fails(tmp_path / "bad.json")
