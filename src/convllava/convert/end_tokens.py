"""The token that ends an answer: learned in training by the prompt format, and waited for in generation."""

from transformers import GenerationConfig

from ..model import ConvLlavaProcessor

_DIALOGUE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]


def learned_end(processor: ConvLlavaProcessor) -> int | None:
    """Return the control token that training puts at the end of an answer, or None if the prompt format writes none."""
    learned = _learned(processor)
    special = {*processor.tokenizer.all_special_ids, *processor.tokenizer.added_tokens_decoder}
    return next((token for token in reversed(learned) if token in special), None)


def end_token_fault(processor: ConvLlavaProcessor, generation: GenerationConfig) -> str:
    """Return why answers of a model that is trained with this processor would not end, or an empty string.

    Args:
        processor: The processor; the format ``plain``, which serves captions only, is left alone.
        generation: The defaults for generation.
    """
    if processor.prompt_format == "plain":
        return ""
    try:
        learned = _learned(processor)
    except ValueError:
        return ""  # the template cannot render this dialogue, which is reported where it is used
    stored = generation.eos_token_id if generation.eos_token_id is not None else processor.tokenizer.eos_token_id
    ends = [] if stored is None else stored if isinstance(stored, list) else [stored]
    if set(ends) & set(learned):
        return ""
    if (learned_token := learned_end(processor)) is None:
        return (
            f"the prompt format {processor.prompt_format!r} writes no end token after an answer, so that answers run "
            "to --max-new-tokens: use another prompt format, or write eos_token into the chat template"
        )
    names = processor.tokenizer.convert_ids_to_tokens([learned_token, *ends])
    return (
        f"answers are learned to end with {names[0]} ({learned_token}), but generation ends at "
        f"{', '.join(names[1:]) or 'no token'}: add {learned_token} to eos_token_id in generation_config.json"
    )


def _learned(processor: ConvLlavaProcessor) -> list[int]:
    encoded = processor.encode(_DIALOGUE)
    return [int(token) for token in encoded["input_ids"][encoded["labels_mask"]]]
