"""Values that several packages must agree on."""

from typing import Any, Literal, get_args

IGNORE_INDEX = -100
"""Label of a position that carries no loss (PyTorch's cross entropy default)."""

IMAGE_TOKEN = "<image>"
"""Placeholder of one image in a prompt; the processor repeats it once per visual token."""

PromptFormat = Literal["vicuna_v1", "llava_v1", "plain", "tokenizer"]
PROMPT_FORMAT_NAMES: tuple[str, ...] = get_args(PromptFormat)
"""Names of the prompt formats; "tokenizer" is the chat template of the language model's own tokenizer."""

RESOLUTIONS = (768, 1024, 1536)
"""Resolutions of the paper's models, in pixels."""

PRESET_NAMES = (
    "nano",
    *(f"convllava-7b-{side}" for side in RESOLUTIONS),
    *(f"convnext-l-four-stage-7b-{side}" for side in RESOLUTIONS),
    "clip-vit-l-336-7b",
    "convnext-b-four-stage-qwen3-0.6b",
)
"""Names of the presets, known without an import of torch; `convllava.model.PRESETS` builds them."""
Message = dict[str, Any]
"""One turn of a dialogue: "role", "content" (a string or a list of parts), and "weight" 0 for an answer that is context
only, not learned."""
