"""Damaged and unsupported checkpoints of the authors' code are refused with a one-line message."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.conftest import stored_tensors
from safetensors.torch import save_file

from convllava.convert import open_checkpoint
from convllava.inference import load_pretrained

Change = Callable[[Path], object]

WEIGHTS = "pytorch_model.bin"
INDEX = f"{WEIGHTS}.index.json"
TOWER_PREFIX = "model.vision_tower.vision_tower."
NORM = "model.norm.weight"


def config(path: str = "config.json", **values: Any) -> Change:
    def spoil(folder: Path) -> None:
        stored = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps({**stored, **values}))

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], object], part: str = ".") -> Change:
    def spoil(folder: Path) -> None:
        state = torch.load(folder / part / WEIGHTS, weights_only=True)
        change(state)
        torch.save(state, folder / part / WEIGHTS)

    return spoil


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil-was-here",)


def evil(folder: Path) -> None:
    torch.save({"a": Evil()}, folder / WEIGHTS)


def old_evil(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Evil()))


def truncate(path: str) -> Change:
    def spoil(folder: Path) -> None:
        data = (folder / path).read_bytes()
        (folder / path).write_bytes(data[: len(data) // 2])

    return spoil


def bomb(folder: Path) -> None:
    """A header that claims to be as large as the address space."""
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{" * 1000)


def swollen_header(folder: Path) -> None:
    """A header that is as large as it claims, 20 MiB of blanks."""
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20 << 20) + b"{}" + b" " * (20 << 20))


def tower_inside_too(folder: Path) -> None:
    state = torch.load(folder / WEIGHTS, weights_only=True)
    tower = torch.load(folder / "vision_tower" / WEIGHTS, weights_only=True)
    torch.save(state | {TOWER_PREFIX + name: tensor for name, tensor in tower.items()}, folder / WEIGHTS)


def without_layer(folder: Path) -> None:
    tensors(lambda s: [s.pop(name) for name in list(s) if name.startswith("model.layers.1.")])(folder)


def shallower_tower(folder: Path) -> None:
    last = "encoder.stages.4.layers.1."
    tensors(lambda s: [s.pop(name) for name in list(s) if name.startswith(last)], "vision_tower")(folder)


def tower_with_a_gap(folder: Path) -> None:
    stage = "encoder.stages.3.layers."
    tensors(lambda s: [s.pop(name) for name in list(s) if name.startswith(stage)], "vision_tower")(folder)


SPLIT_FAULTS: dict[str, tuple[Change, str]] = {
    "missing": (tensors(lambda s: s.pop(NORM)), r"1 missing: model\.norm\.weight"),
    "surplus": (tensors(lambda s: s.update(extra=torch.ones(2))), "1 surplus: extra"),
    "misshapen": (
        tensors(lambda s: s.update({NORM: torch.ones(3)})),
        r"model\.norm\.weight is \[3\], expected",
    ),
    "integer": (tensors(lambda s: s.update({NORM: torch.ones(64, dtype=torch.int64)})), f"{NORM} is int64"),
    "nan": (tensors(lambda s: s[NORM][:2].fill_(torch.nan)), f"2 of 64 values of {NORM} are not finite"),
    "too few layers": (without_layer, r"9 missing: model\.layers\.1\."),
    "projector": (config(mm_projector_type="linear"), "mm_projector_type is 'linear'"),
    "no projector named": (config(mm_projector_type=None), "mm_projector_type is None"),
    "start and end": (config(mm_use_im_start_end=True), "mm_use_im_start_end is True"),
    "patch token": (config(mm_use_im_patch_token=True), "mm_use_im_patch_token is True"),
    "anyres": (config(image_aspect_ratio="anyres"), "image_aspect_ratio is 'anyres', and only 'pad'"),
    "layer": (config(mm_vision_select_layer=-2), "mm_vision_select_layer is -2, and of a ConvNeXt only layer -1"),
    "width": (config(mm_hidden_size=96), "mm_hidden_size is 96, but the encoder's last stage is 128 wide"),
    "scales": (config(s2=True), "s2 is True, which changes the model and is not supported"),
    "resampler": (config(mm_resampler_type="perceiver"), "mm_resampler_type is 'perceiver', which changes the model"),
    "second encoder": (config(mm_vision_tower_aux="x"), "mm_vision_tower_aux is 'x', which changes the model"),
    "quantized": (config(quantization_config={"load_in_4bit": True}), "quantization_config is .*which changes"),
    "mean": (config("vision_tower/preprocessor_config.json", image_std=[0.26, 0, 0.27]), "image_std is .* above 0"),
    "no mean": (config("vision_tower/preprocessor_config.json", image_mean=[0.5]), "image_mean has 1 values"),
    "bilinear": (config("vision_tower/preprocessor_config.json", resample=2), "resample is 2, and only 3 is supported"),
    "crop": (
        config("vision_tower/preprocessor_config.json", crop_size={"height": 224, "width": 224}),
        "both must be one square",
    ),
    "two resolutions": (config("vision_tower/config.json", image_size=512), "256 in .*preprocessor.*, 512 in vision"),
    "depths": (config("vision_tower/config.json", depths=[1, 1, 2, 1, 3]), "depths is .* but the tensors say"),
    "fewer stages": (config("vision_tower/config.json", num_stages=4), "num_stages is 4, but the tensors say 5"),
    "shallower": (shallower_tower, r"depths is \[1, 1, 2, 1, 2\], but the tensors say \[1, 1, 2, 1, 1\]"),
    "gap": (tower_with_a_gap, "stage 4 of 5 has no layers"),
    "no tower": (
        lambda f: shutil.rmtree(f / "vision_tower"),
        "has no vision encoder: config.json names 'vision_tower'",
    ),
    "two towers": (tower_inside_too, "has two vision encoders"),
    "code": (evil, "refused: it holds more than tensors"),
    "old code": (old_evil, "refused: it holds more than tensors"),
    "truncated": (truncate(WEIGHTS), "is not a complete PyTorch file"),
    "truncated tower": (truncate(f"vision_tower/{WEIGHTS}"), "is not a complete PyTorch file"),
    "no tensors": (lambda f: torch.save([torch.ones(2)], f / WEIGHTS), "holds list where tensors by name"),
    "numbers": (lambda f: torch.save({"a": 3}, f / WEIGHTS), "holds entries that are not tensors: a"),
    "bomb": (bomb, "claims a header of 1099511627776 bytes"),
    "swollen": (swollen_header, "claims a header of 20971520 bytes"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer: tokenizer.model is missing"),
    "broken tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b"\x00" * 50), "cannot load the tokenizer"),
    "vocabulary": (config(vocab_size=1200), r"model\.embed_tokens\.weight is \[1000, 64\]"),
    "plain llama": (config(model_type="llama"), "holds a model of type 'llama'.*no vision encoder"),
    "tower alone": (config(model_type="convnext"), "a vision encoder alone"),
}


@pytest.mark.parametrize("name", SPLIT_FAULTS)
def test_faults_of_the_split_layout(
    split: Path, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(split.parent)
    spoil, message = SPLIT_FAULTS[name]
    spoil(split)
    with pytest.raises(ValueError, match=message) as excinfo:
        load_pretrained(split, device="cpu")
    assert str(split) in str(excinfo.value)
    assert "\n" not in str(excinfo.value)
    assert capfd.readouterr() == ("", "")
    assert not (split.parent / "evil-was-here").exists()


def place(name: str, shard: str | None) -> Change:
    def spoil(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        if shard is None:
            del index["weight_map"][name]
        else:
            index["weight_map"][name] = shard
        (folder / INDEX).write_text(json.dumps(index))

    return spoil


CONSOLIDATED_FAULTS: dict[str, tuple[Change, str]] = {
    "omitted": (place(NORM, None), f"omits tensors of its files: {NORM}"),
    "wrong shard": (place(NORM, "pytorch_model-00001-of-00002.bin"), f"where they are not: {NORM}"),
    "invented": (place("extra", "pytorch_model-00001-of-00002.bin"), "where they are not: extra"),
    "escape": (place(NORM, "../pytorch_model.bin"), "../pytorch_model.bin is missing"),
    "absolute": (place(NORM, "/etc/passwd"), "/etc/passwd is missing"),
    "lost shard": (lambda f: (f / "pytorch_model-00002-of-00002.bin").unlink(), "00002-of-00002.bin is missing"),
    "empty index": (lambda f: (f / INDEX).write_text("{}"), "has no weight_map"),
    "truncated": (truncate("pytorch_model-00002-of-00002.bin"), "is not a complete PyTorch file"),
    "another shape": (
        config(mm_vision_tower="ConvLLaVA/ConvLLaVA-ConvNeXt-768"),
        r"ConvLLaVA-ConvNeXt-768 has depths and widths \(\(3, 3, 27, 3, 6\)",
    ),
}


@pytest.mark.parametrize("name", CONSOLIDATED_FAULTS)
def test_faults_of_the_consolidated_layout(consolidated: Path, name: str) -> None:
    spoil, message = CONSOLIDATED_FAULTS[name]
    spoil(consolidated)
    with pytest.raises(ValueError, match=message) as excinfo:
        load_pretrained(consolidated, device="cpu", resolution=256)
    assert str(consolidated) in str(excinfo.value)


def test_an_unknown_resolution_has_to_be_passed(consolidated: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"resolution is not set, and .*ConvLLaVA-ConvNeXt-256' is no published encoder: pass resolution",
    ):
        load_pretrained(consolidated)
    config(mm_vision_resolution=320)(consolidated)
    assert open_checkpoint(consolidated).config.resolution == 320
    assert open_checkpoint(consolidated, resolution=256).config.resolution == 256


def test_the_tuned_tower_in_the_checkpoint_wins_over_any_path(split: Path, tmp_path: Path) -> None:
    """The authors' code would load the tower that the configuration names: the one before training."""
    elsewhere = tmp_path / "before"
    shutil.copytree(split / "vision_tower", elsewhere)
    tensors(lambda s: [tensor.zero_() for tensor in s.values()])(elsewhere)
    before = load_pretrained(split, device="cpu")[0].state_dict()
    config(mm_vision_tower=str(elsewhere))(split)
    after = load_pretrained(split, device="cpu")[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_safetensors_instead_of_pickles(split: Path, consolidated: Path) -> None:
    expected = load_pretrained(split, device="cpu")[0].state_dict()
    for folder in (split, split / "vision_tower"):
        save_file(stored_tensors(folder), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / WEIGHTS).unlink()
    loaded = load_pretrained(split, device="cpu")[0].state_dict()
    assert all(torch.equal(expected[name], loaded[name]) for name in expected)


def test_pickles_from_before_pytorch_1_6(split: Path) -> None:
    expected = load_pretrained(split, device="cpu")[0].state_dict()
    state = stored_tensors(split)
    torch.save(state, split / WEIGHTS, _use_new_zipfile_serialization=False)
    loaded = load_pretrained(split, device="cpu")[0].state_dict()
    assert all(torch.equal(expected[name], loaded[name]) for name in expected)


def test_tables_of_old_versions_are_ignored(split: Path) -> None:
    tensors(lambda s: s.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))(split)
    tensors(lambda s: s.update({"layernorm.weight": torch.ones(128)}), "vision_tower")(split)
    load_pretrained(split, device="cpu")


@pytest.mark.parametrize(("settings", "legacy"), [({"legacy": False}, False), ({"legacy": True}, True), ({}, True)])
def test_legacy_tokenizers(split: Path, settings: dict[str, bool], legacy: bool) -> None:
    """Llama's slow tokenizer is legacy unless told: then a word boundary also opens the text after ``</s>``."""
    import sentencepiece

    path = split / "tokenizer_config.json"
    stored = json.loads(path.read_text())
    stored.pop("legacy")
    path.write_text(json.dumps({**stored, **settings}))
    _, processor = load_pretrained(split, device="cpu")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(split / "tokenizer.model"))
    second = pieces.encode("USER: b")  # with the boundary that opens every text
    if not legacy:
        # as transformers does it: encoded behind the unknown token, which is then taken off again
        unknown = pieces.encode("<unk>", out_type=str, add_bos=False)
        second = [pieces.piece_to_id(piece) for piece in pieces.encode("<unk>USER: b", out_type=str)[len(unknown) :]]
    expected = [1, *pieces.encode("ASSISTANT: a"), 2, *second]
    assert processor(text="ASSISTANT: a</s>USER: b")["input_ids"] == [expected]


def test_sampling_options_of_the_language_model_are_ignored(split: Path) -> None:
    config("generation_config.json", temperature=0.9, top_p=0.6)(split)
    model, _ = load_pretrained(split, device="cpu")
    assert not model.generation_config.do_sample
    assert model.generation_config.temperature in (None, 1.0)
    config("generation_config.json", max_new_tokens=-1)(split)
    with pytest.raises(ValueError, match=r"generation_config\.json is not a valid generation configuration"):
        load_pretrained(split, device="cpu")


def test_rope_scaling_of_older_files(split: Path) -> None:
    config(rope_theta=50000.0, rope_scaling={"type": "linear", "factor": 2.0})(split)
    parameters = open_checkpoint(split).config.text_config.rope_parameters
    assert (parameters["rope_theta"], parameters["rope_type"], parameters["factor"]) == (50000.0, "linear", 2.0)
