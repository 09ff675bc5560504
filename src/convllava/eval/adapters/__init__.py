"""Adapters for other evaluation kits: lmms-eval and VLMEvalKit, neither of which is installed with this package."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def lmms_eval_manifest() -> "ModelManifest":
    """Return lmms-eval's description of the model ``convllava``; entry point of the group ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    path = "convllava.eval.adapters.lmms_eval_model.ConvLlava"
    return ModelManifest(model_id="convllava", chat_class_path=path)
