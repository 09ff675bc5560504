"""Draw the example images of the chat page of `convllava serve`.

Example number ``i`` is sample ``i`` of held-out series 0, so none is chosen by the model's answer.

python benchmarks/serve_examples.py
"""

import json
from pathlib import Path
from typing import Any

from convllava.synthetic import SyntheticDataset

FOLDER = Path(__file__).parents[1] / "src" / "convllava" / "serve" / "static" / "examples"

PAGE = {"font_size": [28, 42], "noise": 0.25, "tasks": ["field"]}

EXAMPLES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("receipt", "A receipt", "document", {"sizes": [[320, 256]], "layouts": ["receipt"], **PAGE}),
    (
        "form",
        "A filled-in form",
        "document",
        {"sizes": [[256, 384]], "layouts": ["form"], **PAGE, "font_size": [28, 32]},
    ),
    ("line", "A line of text", "line", {"sizes": [[64, 192]], "cap": [0.4, 0.75], "noise": 0.3}),
    ("where", "Colored shapes", "grounding", {"sizes": [[128, 192]], "tasks": ["attribute"]}),
    ("count", "Shapes to count", "scene", {"sizes": [[128, 128]], "tasks": ["count"]}),
    ("caption", "Shapes to describe", "scene", {"sizes": [[192, 128]], "tasks": ["caption"], "most": 3}),
)


def main() -> None:
    """Draw the images and write ``examples.json``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, (name, title, kind, options) in enumerate(EXAMPLES):
        dataset = SyntheticDataset(kind, count=len(EXAMPLES), seed=0, split="heldout", **options)
        example = dataset.example(index)
        example.image.save(FOLDER / f"{name}.png", optimize=True)
        entries.append({"file": f"{name}.png", "title": title, "question": example.question, "truth": example.answer})
    (FOLDER / "examples.json").write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
