"""The model card that a written checkpoint gets, so that its directory is complete for a hub."""

from .checkpoint import Checkpoint

_CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [convllava, vision-language]
---

# {title}

A ConvLLaVA checkpoint ([arXiv 2405.15738](https://arxiv.org/abs/2405.15738)), {origin}.

| | |
|---|---|
| vision encoder | {encoder}, one visual token for {stride} x {stride} pixels |
| language model | {language}, {layers} layers, width {width}, {vocabulary} tokens |
| images | {aspect}, {resolution} |
| prompt format | `{prompt}` |

```python
import convllava

model, processor = convllava.load_pretrained("{title}")
print(convllava.ask(model, processor, "image.png", "What is shown?").text)
```

Nothing is said here of its training, its data, its license and how well it answers: whoever publishes it should add
that.
"""

_UNTRAINED = (
    "**untrained**: an encoder and a language model that have not met, joined by a projector of random values. It "
    "answers nonsense until it is trained (`init_from` of a recipe)"
)


def model_card(checkpoint: Checkpoint, title: str) -> str:
    """Return a card with what the checkpoint's files tell, and a reminder of what they do not."""
    config = checkpoint.config
    vision, text = config.vision_config, config.get_text_config(decoder=True)
    depths = getattr(vision, "depths", None)
    return _CARD.format(
        title=title,
        origin=_UNTRAINED if checkpoint.layout == "parts" else f"written from the layout `{checkpoint.layout}`",
        encoder=f"ConvNeXt, depths {depths}, widths {vision.hidden_sizes}" if depths else "CLIP ViT",
        stride=config.output_stride,
        language=text.model_type,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        aspect=config.image_aspect_ratio,
        resolution="at their own size" if config.resolution is None else f"resolution {config.resolution}",
        prompt=config.prompt_format,
    )
