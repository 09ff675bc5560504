"""The end of an answer: the token that training with a prompt format teaches must be one that ends generation."""

from transformers import GenerationConfig

from ..model import ConvLlavaProcessor


def learned_end(processor: ConvLlavaProcessor) -> tuple[int, bool] | None:
    """Return the last token of an answer that training with the processor's prompt format supervises.

    Returns:
        Its id, and whether it is a control token rather than text; None where the format has no dialogue of text.
    """
    turns = {"user": "Hi", "assistant": "Yes"}
    dialogue = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns.items()]
    try:
        encoded = processor.encode(dialogue, [])
    except ValueError:  # reported where the format is used
        return None
    supervised = encoded["input_ids"][encoded["labels_mask"]].tolist()
    if not supervised:
        return None
    tokenizer = processor.tokenizer
    return supervised[-1], supervised[-1] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def end_ids(processor: ConvLlavaProcessor, generation_config: GenerationConfig | None) -> list[int]:
    """Return the ids that end generation: those of the checkpoint, or else the tokenizer's."""
    stored = None if generation_config is None else generation_config.eos_token_id
    stored = processor.tokenizer.eos_token_id if stored is None else stored
    return [] if stored is None else [stored] if isinstance(stored, int) else list(stored)


def end_finding(processor: ConvLlavaProcessor, generation_config: GenerationConfig | None) -> str | None:
    """Return what is wrong if the end of an answer, as it is learned, does not end generation."""
    learned, ends = learned_end(processor), end_ids(processor, generation_config)
    if learned is None or learned[0] in ends:
        return None
    token_id, is_control = learned
    if not is_control:
        return (
            "the prompt format writes no end token after an answer, so a model trained with it never ends one: every "
            "answer runs to max_new_tokens. Choose another prompt_format, or let the chat template write an end token"
        )
    token = processor.tokenizer.convert_ids_to_tokens(token_id)
    return (
        f"the prompt format ends answers with {token} (id {token_id}), and generation ends only at "
        f"{', '.join(map(str, ends)) or 'no token'}: answers run to max_new_tokens. Add {token_id} to eos_token_id in "
        "generation_config.json"
    )


def with_learned_end(processor: ConvLlavaProcessor, generation_config: GenerationConfig) -> GenerationConfig:
    """Add the control token that ends a learned answer to those that end generation, and return the configuration."""
    learned, ends = learned_end(processor), end_ids(processor, generation_config)
    if learned is not None and learned[1] and learned[0] not in ends:
        generation_config.eos_token_id = [*ends, learned[0]]
    return generation_config
