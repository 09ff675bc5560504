"""What is exported works where this package is not, and gives the same values."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from transformers.dynamic_module_utils import get_imports

from convllava.cli.main import main
from convllava.convert import export_backbone, export_onnx, export_with_code, load_vision_tower
from convllava.inference import load_pretrained

WITHOUT_OUR_PACKAGE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "convllava":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import torch
from safetensors.torch import save_file
"""

WHOLE_MODEL = """
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor
folder, out = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
image = torch.arange(70 * 140 * 3, dtype=torch.uint8).reshape(70, 140, 3).numpy()
messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
batch = processor.apply_chat_template(
    messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
)
tower = AutoModel.from_pretrained(folder, trust_remote_code=True).vision_tower
tower.set_backend("eager")
try:
    tower.set_backend("cpu-float32")
except ValueError as error:
    assert "choose one of eager; the faster ones are in the convllava package" in str(error), error
else:
    raise AssertionError("an exported encoder is always eager")
with torch.no_grad():
    save_file({"logits": model(**batch).logits, "ids": batch["input_ids"]}, out)
"""

BACKBONE = """
from transformers import AutoModel
folder, out = sys.argv[1:]
backbone = AutoModel.from_pretrained(folder, trust_remote_code=True, out_features=["stage2", "stage5"])
pixels = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    maps = backbone(pixels).feature_maps
save_file({str(index): feature_map.contiguous() for index, feature_map in enumerate(maps)}, out)
"""


def run_elsewhere(script: str, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    environment = {**os.environ, "HF_MODULES_CACHE": str(out.parent / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", WITHOUT_OUR_PACKAGE + script, str(folder), str(out)]
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out)


def test_a_checkpoint_with_its_own_code(tiny_checkpoint: Path, tmp_path: Path) -> None:
    export_with_code(tiny_checkpoint, tmp_path / "model")
    assert not list((tmp_path / "model").glob("*triton*")), "faster backends stay in the package"
    needed = {name for path in (tmp_path / "model").glob("*.py") for name in get_imports(path)}
    assert needed - sys.stdlib_module_names == {"PIL", "jinja2", "numpy", "tokenizers", "torch", "transformers"}
    theirs = run_elsewhere(WHOLE_MODEL, tmp_path / "model", tmp_path / "out.safetensors")
    model, processor = load_pretrained(tmp_path / "model", device="cpu")  # and here as any other
    image = torch.arange(70 * 140 * 3, dtype=torch.uint8).reshape(70, 140, 3).numpy()
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
    batch = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    assert torch.equal(theirs["ids"], batch["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(theirs["logits"], model(**batch).logits)


def test_a_backbone_with_its_own_code(tiny_checkpoint: Path, tmp_path: Path) -> None:
    export_backbone(tiny_checkpoint, tmp_path / "backbone")
    maps = run_elsewhere(BACKBONE, tmp_path / "backbone", tmp_path / "out.safetensors")
    pixels = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    tower = load_vision_tower(tiny_checkpoint)
    with torch.no_grad():
        expected = tower(pixels, output_hidden_states=True).hidden_states
    assert sorted(maps) == ["0", "1"]
    torch.testing.assert_close(maps["0"], expected[2])
    torch.testing.assert_close(maps["1"], expected[5])
    again = load_vision_tower(tmp_path / "backbone").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in tower.state_dict().items())


@pytest.mark.parametrize("with_projector", [True, False])
def test_onnx_of_any_size(tiny_checkpoint: Path, tmp_path: Path, with_projector: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, _ = load_pretrained(tiny_checkpoint, device="cpu")
    projector = model.model.multi_modal_projector if with_projector else None
    path = tmp_path / "encoder.onnx"
    checks = export_onnx(model.model.vision_tower, projector, path)
    assert len(checks) == 3
    assert all(check.difference < 1e-4 for check in checks)
    pixels = torch.randn(1, 3, 256, 320)
    (tokens,) = onnxruntime.InferenceSession(str(path)).run(None, {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        features = model.get_image_features(pixels)
    expected = features.pooler_output[0] if with_projector else features.last_hidden_state
    torch.testing.assert_close(torch.from_numpy(tokens[0]), expected, rtol=1e-4, atol=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["encoder.onnx"]


def test_a_backbone_next_to_the_package(tiny_checkpoint: Path, tmp_path: Path) -> None:
    export_backbone(tiny_checkpoint, tmp_path / "backbone")
    backbone = AutoModel.from_pretrained(
        tmp_path / "backbone", trust_remote_code=True, out_features=["stage2", "stage5"]
    )
    assert [tuple(maps.shape[2:]) for maps in backbone(torch.zeros(1, 3, 64, 128)).feature_maps] == [(8, 16), (1, 2)]


def test_an_encoder_alone_is_inspected_and_exported(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tower = tmp_path / "tower"
    export_backbone(tiny_checkpoint, tower)
    assert main(["inspect", str(tower)]) == 0
    assert "vision encoder alone" in capsys.readouterr().out
    assert main(["inspect", str(tower), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vision_encoder"]["output_stride"] == 64
    assert main(["export", "onnx", str(tower), str(tmp_path / "a.onnx")]) == 2
    assert "add --no-projector" in capsys.readouterr().err
    assert main(["export", "onnx", str(tower), str(tmp_path / "a.onnx"), "--no-projector"]) == 0


def test_destinations_and_encoders_that_cannot_be(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "onnx", str(tiny_checkpoint), str(tmp_path / "encoder.bin")]) == 2
    assert "give a new name that ends in .onnx" in capsys.readouterr().err
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("")
    for kind in ("code", "backbone"):
        assert main(["export", kind, str(tiny_checkpoint), str(tmp_path / "taken")]) == 2
        assert "exists already" in capsys.readouterr().err
    save_file({"layer1.weight": torch.ones(2)}, tmp_path / "resnet.safetensors")
    assert main(["export", "backbone", str(tmp_path / "resnet.safetensors"), str(tmp_path / "never")]) == 2
    assert "holds no ConvNeXt" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
