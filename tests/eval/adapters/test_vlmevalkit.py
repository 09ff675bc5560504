"""The VLMEvalKit adapter against a stub with the kit's interface (the kit cannot be installed here)."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit_files import image_bytes

from convllava.eval.multiple_choice import CHOOSE
from convllava.inference import Request


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The adapter's module; the stub of the base class writes a row's images to files, as the kit does."""

    class BaseModel:
        def dump_image(self, line: Any, dataset: str) -> list[str]:
            paths = []
            for number, data in enumerate(line["image"]):
                path = tmp_path / f"{line['index']}-{number}.png"
                path.write_bytes(data)
                paths.append(str(path))
            return paths

    names = ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base", "vlmeval.config")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["vlmeval.vlm.base"].BaseModel = BaseModel  # type: ignore[attr-defined]
    sys.modules["vlmeval.config"].supported_VLM = {}  # type: ignore[attr-defined]
    sys.modules.pop("convllava.eval.adapters.vlmevalkit", None)
    yield importlib.import_module("convllava.eval.adapters.vlmevalkit")
    sys.modules.pop("convllava.eval.adapters.vlmevalkit", None)


def test_a_row_becomes_our_prompt_and_an_answer(adapter: Any, tiny_checkpoint: Path) -> None:
    model = adapter.ConvLLaVA(str(tiny_checkpoint))
    assert model.INTERLEAVE
    assert model.use_custom_prompt("MMMU_DEV_VAL") and not model.use_custom_prompt("MathVista")
    row = {"index": 5, "question": "Is <image 1> red?", "A": "yes", "B": "no", "C": float("nan"), "answer": "A"}
    line = {**row, "image": [image_bytes()]}
    message = model.build_prompt(line, dataset="MMMU_DEV_VAL")
    assert [part["type"] for part in message] == ["text", "image", "text"]
    assert message[2]["value"] == f" red?\nA. yes\nB. no\n{CHOOSE}"
    content = [
        {"type": "text", "text": "Is "},
        {"type": "image", "image": message[1]["value"]},
        {"type": "text", "text": "\n" + message[2]["value"]},
    ]
    (wanted,) = model._generator.generate([Request(messages=[{"role": "user", "content": content}])])
    assert model.generate_inner(message, dataset="MMMU_DEV_VAL") == wanted.text


def test_the_model_is_registered(adapter: Any) -> None:
    adapter.register("ConvLLaVA-mine", model_path="runs/mine")
    entry = sys.modules["vlmeval.config"].supported_VLM["ConvLLaVA-mine"]  # type: ignore[attr-defined]
    assert entry.func is adapter.ConvLLaVA and entry.keywords == {"model_path": "runs/mine"}
