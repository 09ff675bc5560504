"""ConvLLaVA: a vision encoder, a two-layer projector and a causal language model.

Paper: ConvLLaVA (https://arxiv.org/abs/2405.15738). The interface is that of transformers' LLaVA: images enter in three
named steps. ``get_image_features`` encodes and projects them, ``get_placeholder_mask`` finds their positions in the
text, and ``masked_scatter`` puts them there.

Shapes: B sequences of T positions, N images of H x W pixels in all of them, n_i visual tokens of image i, C channels of
the encoder's last stage, D hidden size of the language model, V size of its vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, ModelOutput
from transformers.utils import can_return_tuple

from ..compat import from_config
from .configuration_convllava import ConvLlavaConfig, ConvLlavaVisionConfig
from .vision_convllava import ConvLlavaVisionModel

CLIP_FEATURE_LAYER = -2
"""Layer of CLIP whose features LLaVA uses (the control of the paper's Tables 2, 3 and 8)."""

VISION_TOWER_PREFIX = "model.vision_tower."
PROJECTOR_PREFIX = "model.multi_modal_projector."
LANGUAGE_MODEL_PREFIX = "model.language_model."
"""Beginnings of the parameter names of the three parts; the head is ``lm_head.``."""


@dataclass
class ConvLlavaModelOutput(BaseModelOutputWithPast):
    """Output of :class:`ConvLlavaModel`; ``image_hidden_states`` are the projected features, (sum of n_i, D)."""

    image_hidden_states: Tensor | None = None


@dataclass
class ConvLlavaOutput(ModelOutput):
    """Output of :class:`ConvLlavaForConditionalGeneration`; ``logits`` (B, T, V)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None


class ConvLlavaMultiModalProjector(nn.Module):
    """The two-layer projector (``mlp2x_gelu``) from visual features to the language model's embeddings."""

    def __init__(self, config: ConvLlavaConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:  # (tokens, C) -> (tokens, D)
        """Return the projected features."""
        return self.linear_2(self.act(self.linear_1(features)))


class ConvLlavaPreTrainedModel(PreTrainedModel):
    """Weight initialization, and the capabilities that transformers and vLLM look up on a model class."""

    config: ConvLlavaConfig
    config_class = ConvLlavaConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["ConvLlavaVisionLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear) and module is not self.get_output_embeddings():
            # the projector: scaled by its inputs, without which images hardly influence the text at first
            init.normal_(module.weight, std=module.in_features**-0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class ConvLlavaModel(ConvLlavaPreTrainedModel):
    """Vision encoder, projector and language model without its head."""

    def __init__(self, config: ConvLlavaConfig) -> None:
        super().__init__(config)
        self.vision_tower = _build_vision_tower(config.vision_config)
        self.multi_modal_projector = ConvLlavaMultiModalProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_image_features(
        self, pixel_values: Tensor, image_sizes: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Encode and project images, each as if it were alone.

        The vision encoder and the projector are called exactly once each, for any number of different shapes: under
        FSDP2 every rank must take part in the same collectives.

        Args:
            pixel_values: (N, 3, Hmax, Wmax), zero-padded right and bottom.
            image_sizes: int64 (N, 2), true (H, W); by default all images are Hmax x Wmax.

        Returns:
            ``pooler_output``: a list of N tensors (n_i, D), n_i = (H_i // stride) * (W_i // stride), row-major;
            ``last_hidden_state``: the features before the projector, (sum of n_i, C).

        Raises:
            ValueError: An image is smaller than one visual token, or not of the size that a CLIP encoder needs.
        """
        if image_sizes is None:
            image_sizes = torch.tensor([list(pixel_values.shape[-2:])] * len(pixel_values), dtype=torch.int64)
        features = encode_images(self.vision_tower, pixel_values, image_sizes)  # (sum of n_i, C)
        projected = self.multi_modal_projector(features)
        tokens_per_image = (image_sizes // self.config.output_stride).prod(dim=-1).tolist()
        return BaseModelOutputWithPooling(
            last_hidden_state=features, pooler_output=list(projected.split(tokens_per_image))
        )

    def get_placeholder_mask(self, input_ids: Tensor | None, inputs_embeds: Tensor, num_features: int) -> Tensor:
        """Find the positions of the visual tokens.

        Args:
            input_ids: (B, T), or None to compare the embeddings with that of ``<image>``.
            inputs_embeds: (B, T, D).
            num_features: Number of visual tokens, the sum of n_i.

        Returns:
            bool (B, T, 1).

        Raises:
            ValueError: The number of placeholders and that of visual tokens differ.
        """
        if input_ids is None:
            placeholder = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(placeholder)).all(dim=-1)
        else:
            mask = input_ids == self.config.image_token_id
        num_placeholders = int(mask.sum())
        if num_placeholders != num_features:
            raise ValueError(
                f"the text has {num_placeholders} image tokens but the images have {num_features} visual tokens: "
                "let the processor expand <image> with the same images"
            )
        return mask.unsqueeze(-1).to(inputs_embeds.device)

    @can_return_tuple  # vLLM asks for tuples
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> ConvLlavaModelOutput:
        """Run the language model on text and images.

        Args:
            input_ids: int64 (B, T); either these or ``inputs_embeds``.
            pixel_values: (N, 3, Hmax, Wmax), all images of the batch, sequence by sequence; None for text alone.
            image_sizes: int64 (N, 2), true (H, W).
            attention_mask: (B, T), 0 at padding.
            position_ids: int64 (B, T).
            past_key_values: Cache of earlier positions.
            inputs_embeds: (B, T, D).
            mm_encoder_outputs: ``{"image": get_image_features(...)}`` in place of ``pixel_values``.
            kwargs: Further arguments of the language model.

        Returns:
            ``last_hidden_state`` (B, T, D), and ``image_hidden_states`` (sum of n_i, D) where there are images.

        Raises:
            ValueError: Both or neither of ``input_ids`` and ``inputs_embeds`` are given, or the numbers of
                placeholders and visual tokens differ.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        encoded = (mm_encoder_outputs or {}).get("image")
        if encoded is None and pixel_values is not None:
            encoded = self.get_image_features(pixel_values, image_sizes)
        image_features = None
        if encoded is not None:
            image_features = torch.cat(encoded.pooler_output).to(inputs_embeds)
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, len(image_features))
            inputs_embeds = inputs_embeds.masked_scatter(mask, image_features)
        elif self.training and _is_distributed():
            inputs_embeds = inputs_embeds + self._zero_from_blank_image().to(inputs_embeds)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return ConvLlavaModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=image_features,
        )

    def _zero_from_blank_image(self) -> Tensor:  # -> ()
        """Encode the smallest blank image and multiply by zero: a rank without images must join the collectives."""
        config = self.config.vision_config
        side = smallest_side(config)
        blank = torch.zeros(1, config.num_channels, side, side, device=self.device)
        return self.get_image_features(blank).pooler_output[0].sum() * 0.0


class ConvLlavaForConditionalGeneration(ConvLlavaPreTrainedModel, GenerationMixin):
    """ConvLLaVA with the language model's head: training loss and ``generate``.

    ``<image>`` is never generated: ``generation_config`` suppresses it.
    """

    accepts_loss_kwargs = True
    training_stage: str | None = None
    """Training stage that the loaded checkpoint results from; None if its files do not tell."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: ConvLlavaConfig) -> None:
        super().__init__(config)
        self.model = ConvLlavaModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
        if self.generation_config is not None:
            self.generation_config.suppress_tokens = [config.image_token_id]

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.lm_head

    def get_image_features(
        self, pixel_values: Tensor, image_sizes: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """See :meth:`ConvLlavaModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, image_sizes, **kwargs)

    @classmethod
    def tied_weights(cls) -> dict[str, str]:
        """Return the names of weights that tied embeddings share, and of the weights that are stored for them."""
        return dict(cls._tied_weights_keys)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> ConvLlavaOutput:
        """Compute logits, and the loss if there are labels.

        Args:
            labels: int64 (B, T), unshifted, -100 at positions without loss.
            logits_to_keep: Number of last positions, or their indices, to compute logits for; 0 is all.
            kwargs: Further arguments of :meth:`ConvLlavaModel.forward`, which also describes the other ones. The
                loss is divided by ``num_items_in_batch``, if given, instead of the batch's number of supervised
                tokens (gradient accumulation, several devices).

        Returns:
            ``logits`` (B, T, V), or fewer positions; ``loss`` (); ``image_hidden_states`` (sum of n_i, D).
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return ConvLlavaOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )


def encode_images(vision_tower: PreTrainedModel, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
    """Return the features of images before the projector, (sum of n_i, C), each image row-major.

    Args:
        vision_tower: The encoder; of CLIP's ViT, the features are those that LLaVA uses.
        pixel_values: (N, 3, Hmax, Wmax), zero-padded right and bottom.
        image_sizes: int64 (N, 2), true (H, W).

    Raises:
        ValueError: An image is smaller than one visual token, or not of the size that a CLIP encoder needs.
    """
    config = vision_tower.config
    if isinstance(config, ConvLlavaVisionConfig):
        return vision_tower(pixel_values, image_sizes).last_hidden_state.flatten(0, -2)
    side = smallest_side(config)
    if not bool((image_sizes == side).all()):
        raise ValueError(
            f"this model's CLIP encoder takes images of {side}x{side} pixels only, got "
            f"{[tuple(size) for size in image_sizes.tolist()]}; use image_aspect_ratio='pad' at {side}"
        )
    outputs = vision_tower(pixel_values.to(vision_tower.dtype), output_hidden_states=True)
    return outputs.hidden_states[CLIP_FEATURE_LAYER][:, 1:].flatten(0, 1)  # without the class token


def smallest_side(config: PreTrainedConfig) -> int:
    """Return the side in pixels of the smallest square that an encoder takes; CLIP's ViT takes no other."""
    return config.output_stride if isinstance(config, ConvLlavaVisionConfig) else config.image_size


def _build_vision_tower(config: PreTrainedConfig) -> PreTrainedModel:
    # by class, not through AutoModel: the code inside an exported checkpoint is not registered there
    if isinstance(config, ConvLlavaVisionConfig):
        return from_config(ConvLlavaVisionModel, config)
    return AutoModel.from_config(config)


def _is_distributed() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
