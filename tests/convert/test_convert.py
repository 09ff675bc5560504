"""Conversion changes the files and names of tensors, and no bit of their values."""

import errno
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.conftest import CONSOLIDATED, RESOLUTIONS, SPLIT, stored_tensors

from convllava.convert import convert, open_checkpoint, weights
from convllava.inference import load_pretrained

TOWER = "model.vision_tower.vision_tower."


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@torch.no_grad()
def logits(folder: Path, resolution: int | None = None) -> torch.Tensor:
    model, processor = load_pretrained(folder, device="cpu", resolution=resolution)
    image = torch.arange(90 * 70 * 3, dtype=torch.uint8).reshape(90, 70, 3).numpy()
    return model(**processor(images=image, text="<image>\nWhat is it?", return_tensors="pt")).logits


@pytest.mark.parametrize("name", [SPLIT, CONSOLIDATED])
def test_there_and_back_to_the_last_bit(references: Path, tmp_path: Path, name: str) -> None:
    source = references / name
    ours = convert(source, tmp_path / "ours", resolution=RESOLUTIONS[name])
    assert ours.layout == open_checkpoint(tmp_path / "ours").layout == "convllava"
    assert "pad, resolution 256" in (tmp_path / "ours" / "README.md").read_text()
    assert torch.equal(logits(tmp_path / "ours"), logits(source, RESOLUTIONS[name]))
    back = convert(tmp_path / "ours", tmp_path / "back", to="official")
    assert back.layout == open_checkpoint(tmp_path / "back").layout == "official-split"
    assert torch.equal(logits(tmp_path / "back"), logits(source, RESOLUTIONS[name]))
    before = stored_tensors(source)
    tower = {key.removeprefix(TOWER): before.pop(key) for key in list(before) if key.startswith(TOWER)}
    tower |= stored_tensors(source / "vision_tower")
    unused = {"layernorm.weight", "layernorm.bias"}
    assert same(stored_tensors(tmp_path / "back"), before)
    assert same(stored_tensors(tmp_path / "back" / "vision_tower"), {k: v for k, v in tower.items() if k not in unused})


def test_the_small_files_come_back_as_they_were(references: Path, tmp_path: Path) -> None:
    source = references / SPLIT
    convert(source, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", to="official")
    for path in source.rglob("*"):
        copy = tmp_path / "back" / path.relative_to(source)
        if path.suffix == ".json" and "golden" not in path.parts:
            assert read(copy) == read(path), path.name
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == (source / "tokenizer.model").read_bytes()


def test_without_the_authors_small_files(references: Path, tmp_path: Path) -> None:
    """Training drops them: all but the tokenizer's model can be written anew."""
    source = references / SPLIT
    convert(source, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours" / "original")
    with pytest.raises(ValueError, match=r"has no tokenizer\.model, and the authors' code reads no other tokenizer"):
        convert(tmp_path / "ours", tmp_path / "back", to="official")
    assert not (tmp_path / "back").exists()
    shutil.copyfile(source / "tokenizer.model", tmp_path / "ours" / "tokenizer.model")
    convert(tmp_path / "ours", tmp_path / "back", to="official")
    written = read(tmp_path / "back" / "config.json")
    assert {name: written[name] for name in written if name in read(source / "config.json")}.items() <= {
        **read(source / "config.json"),
        "rope_scaling": None,
    }.items()
    assert torch.equal(logits(tmp_path / "back"), logits(source))


def test_shards_and_dtype(references: Path, tmp_path: Path) -> None:
    source = references / SPLIT
    convert(source, tmp_path / "ours", dtype="bfloat16", max_shard_size="200KB")
    shard_files = sorted((tmp_path / "ours").glob("model-*.safetensors"))
    assert len(shard_files) > 3
    index = read(tmp_path / "ours" / "model.safetensors.index.json")["weight_map"]
    assert {path.name for path in shard_files} == set(index.values())
    source_weights = open_checkpoint(source).weights
    for name, tensor in stored_tensors(tmp_path / "ours").items():
        assert torch.equal(tensor, source_weights[name].load().bfloat16())
    assert read(tmp_path / "ours" / "config.json")["dtype"] == "bfloat16"
    assert load_pretrained(tmp_path / "ours", device="cpu", dtype="auto")[0].dtype == torch.bfloat16


def test_checkpoints_of_this_package_are_resharded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "again", max_shard_size="100KB")
    assert same(stored_tensors(tmp_path / "again"), stored_tensors(tiny_checkpoint))
    assert not (tmp_path / "again" / "original").exists()


def test_a_prompt_format_that_the_authors_code_lacks(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="prompt_format is 'tokenizer', and the authors' code supports only 'vicuna_v1'"
    ):
        convert(tiny_checkpoint, tmp_path / "official", to="official")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "gguf"}, "to is 'gguf': pass one of convllava, official"),
        ({"dtype": "int8"}, "dtype 'int8' is not known"),
        ({"max_shard_size": "big"}, "size 'big' is not understood"),
        ({"max_shard_size": "0GB"}, "size '0GB' is not understood"),
    ],
)
def test_wrong_options(tiny_checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(tiny_checkpoint, tmp_path / "never", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_destination_is_left_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already and is not an empty directory"):
        convert(tiny_checkpoint, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]


def test_too_little_space_is_reported_before_writing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"needs 0\.0 GiB and only 0\.0 GiB are free"):
        convert(tiny_checkpoint, tmp_path / "never")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """Limit files to 100 kB, so that writing fails half-way as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("to", ["convllava", "official"])
def test_a_full_disk_leaves_nothing_behind(references: Path, tmp_path: Path, to: Any, small_files_only: None) -> None:
    with pytest.raises(OSError, match="nothing was written") as excinfo:
        convert(references / SPLIT, tmp_path / "never", to=to)
    assert excinfo.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_nan_and_overflow_are_refused(split: Path, tmp_path: Path) -> None:
    path = split / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    state["model.norm.weight"][3] = 1e6
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"norm\.weight has values too large for float16 \(1e\+06\)"):
        convert(split, tmp_path / "never", dtype="float16")
    state["model.norm.weight"][3] = torch.nan
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"norm\.weight holds NaN or infinity"):
        convert(split, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def peak_memory() -> int:
    """Return the most bytes that were resident since ``forget_peak``."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux' /proc")
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_memory_is_that_of_one_tensor(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """192 MiB of weights in a single file are converted with less than half of that."""
    from safetensors.torch import save_file

    layers, width = 24, 4 << 20  # 8 MiB a layer, in bfloat16
    config = read(split / "config.json")
    config |= {"num_hidden_layers": layers, "intermediate_size": width // 3 // config["hidden_size"]}
    (split / "config.json").write_text(json.dumps(config))
    state = stored_tensors(split)
    for layer in range(layers):
        for name in [name for name in state if name.startswith("model.layers.0.")]:
            state[name.replace("layers.0.", f"layers.{layer}.")] = state[name].clone()
        for name, shape in (("gate", (-1, 64)), ("up", (-1, 64)), ("down", (64, -1))):
            weight = torch.ones(config["intermediate_size"] * 64, dtype=torch.bfloat16).reshape(shape)
            state[f"model.layers.{layer}.mlp.{name}_proj.weight"] = weight
    (split / "pytorch_model.bin").unlink()
    if suffix == "bin":
        torch.save(state, split / "pytorch_model.bin")
    else:
        save_file(state, split / "model.safetensors", metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in state.values())
    del state, weight
    monkeypatch.setattr(weights, "READ_BEFORE_RELEASE", 16 << 20)
    forget_peak()
    before = peak_memory()
    convert(split, tmp_path / "ours")
    assert size > 190 << 20
    assert peak_memory() - before < size / 2
