"""The model: configurations, vision encoder, projector and language model, processors."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
)

# from its module: without torchvision, transformers 5.16 and 5.17 export a placeholder that raises on every use
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from ..constants import Message
from .acceleration import BACKENDS as ACCELERATED
from .configuration_convllava import ConvLlavaConfig, ConvLlavaVisionConfig
from .growth import append_stages, enlarge_kernels
from .image_processing_convllava import ConvLlavaImageProcessor, num_image_tokens, resized_shape
from .modeling_convllava import (
    ConvLlavaForConditionalGeneration,
    ConvLlavaModel,
    ConvLlavaModelOutput,
    ConvLlavaMultiModalProjector,
    ConvLlavaOutput,
)
from .nano_model import build_nano_processor, nano
from .presets import PRESETS, preset
from .processing_convllava import ConvLlavaProcessor, check_context
from .processing_inputs import images_of
from .vision_convllava import BACKENDS, ConvLlavaVisionBackbone, ConvLlavaVisionModel

__all__ = [
    "PRESETS",
    "ConvLlavaConfig",
    "ConvLlavaForConditionalGeneration",
    "ConvLlavaImageProcessor",
    "ConvLlavaModel",
    "ConvLlavaModelOutput",
    "ConvLlavaMultiModalProjector",
    "ConvLlavaOutput",
    "ConvLlavaProcessor",
    "ConvLlavaVisionBackbone",
    "ConvLlavaVisionConfig",
    "ConvLlavaVisionModel",
    "Message",
    "append_stages",
    "build_nano_processor",
    "check_context",
    "enlarge_kernels",
    "images_of",
    "nano",
    "num_image_tokens",
    "preset",
    "register_vllm",
    "resized_shape",
]


def register_vllm() -> None:
    """Register the vLLM class that runs this architecture; vLLM's plugin entry point calls it in every process."""
    from vllm import ModelRegistry  # type: ignore[import-not-found]

    ModelRegistry.register_model(
        ConvLlavaForConditionalGeneration.__name__,
        "vllm.model_executor.models.transformers:TransformersMultiModalForCausalLM",
    )


def _register() -> None:
    AutoConfig.register(ConvLlavaVisionConfig.model_type, ConvLlavaVisionConfig, exist_ok=True)
    AutoConfig.register(ConvLlavaConfig.model_type, ConvLlavaConfig, exist_ok=True)
    # of several classes, AutoModel takes the one that the checkpoint's architectures name, the first without any
    AutoModel.register(ConvLlavaVisionConfig, (ConvLlavaVisionModel, ConvLlavaVisionBackbone), exist_ok=True)
    AutoModel.register(ConvLlavaConfig, ConvLlavaModel, exist_ok=True)
    AutoBackbone.register(ConvLlavaVisionConfig, ConvLlavaVisionBackbone, exist_ok=True)
    AutoModelForImageTextToText.register(ConvLlavaConfig, ConvLlavaForConditionalGeneration, exist_ok=True)
    AutoImageProcessor.register(
        ConvLlavaConfig, image_processor_classes={"pil": ConvLlavaImageProcessor}, exist_ok=True
    )
    AutoProcessor.register(ConvLlavaConfig, ConvLlavaProcessor, exist_ok=True)
    BACKENDS.update(ACCELERATED)


_register()
