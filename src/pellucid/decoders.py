"""What a decoder begins with: the id that stands before its text, and the one that names the language.

Takes an encoder-decoder, or a tokenizer that knows languages. Gives those ids, found by asking the model and the tokenizer themselves.
Knows nothing of rows, tables or tasks.
"""

from typing import TYPE_CHECKING, Any

from pellucid.errors import CheckpointError, SettingError
from pellucid.languages import languages_of, speaking
from pellucid.tokens import TokenOptions, encode
from pellucid.types import Note

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def begins_with(model: "PreTrainedModel", checkpoint: str) -> tuple[int, bool]:
    """The id that the decoder begins with, and whether that is the last token of the target instead (mBART).

    The model's own way to move labels by one place is tried on a few of them. Raises CheckpointError where the config says too little.
    """
    import torch

    config: Any = model.config
    labels = [number for number in range(3, 12) if number not in (config.pad_token_id, config.decoder_start_token_id)][:4]
    try:
        moved = model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([labels]))[0].tolist()
    except (AttributeError, ValueError, AssertionError, TypeError) as error:
        if config.decoder_start_token_id is not None:
            return int(config.decoder_start_token_id), False
        cure = "Set decoder_start_token_id and pad_token_id in config.json."
        raise CheckpointError("its config does not say what the decoder begins with", place=checkpoint, cure=cure) from error
    if moved[0] != labels[-1]:
        return int(moved[0]), False
    known = (config.decoder_start_token_id, model.generation_config.decoder_start_token_id, config.bos_token_id, config.eos_token_id)
    return int(next((number for number in known if number is not None), 0)), True


def spoken(
    tokenizer: "PreTrainedTokenizerBase", source: str, target: str, *, in_words: bool
) -> tuple[tuple[int | None, int | None], tuple[Note, ...]]:
    """The last token of every target in this language and the first, where that names the language; None each where it does not matter.

    `in_words`: a prefix names the languages. Raises SettingError for a language that the tokenizer does not know.
    """
    languages = languages_of(tokenizer)
    if languages.way == "none":
        if in_words:
            return (None, None), ()
        cure = "Name the languages in words: Translation(prefix='translate English to Spanish: ')."
        raise SettingError("the tokenizer knows no languages by code", place="source_language, target_language", cure=cure)
    by_source = languages.way != "target first"
    for place, code in (("source_language", source if by_source else ""), ("target_language", target)):
        if code:
            languages.id_of(code, place)
    if not by_source:
        unused = Note(f"source_language {source!r} is not used", "the checkpoint tells languages by that of the target")
        return (None, None), (unused,) if source else ()
    if not target:
        return (None, None), ()
    writer = speaking(tokenizer, source, target, writes=True)
    ids = [*languages.before_target(target), *encode(writer, {"target": ["a"]}, ("target",), TokenOptions()).ids.tolist()]
    return (ids[-1], ids[0] if ids[0] == languages.ids[target] else None), ()
