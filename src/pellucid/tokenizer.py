"""A tokenizer that is ready to use: loaded safely, with the limits and the padding that follow from it.

Takes a folder or a Hub name, or a tokenizer of transformers. Gives the tokenizer with notes on what was chosen, its true maximum
length, its padding, a fingerprint, and a private twin that encodes without touching the caller's tokenizer.
Knows nothing of rows, tables, models or torch.
"""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import SettingError, TokenizerError
from pellucid.process import hide_broken_torchvision
from pellucid.token_table import PadSpec, TokenOptions
from pellucid.types import Note

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

UNKNOWN_LENGTH = 10**20  # transformers writes int(1e30) where a tokenizer does not say how much its model can read
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tekken.json", "*.model", "*.tiktoken")


def load_tokenizer(checkpoint: str | Path) -> tuple["PreTrainedTokenizerBase", tuple[Note, ...]]:
    """The tokenizer of a folder or Hub name, and what was chosen for the user.

    Never runs code of the checkpoint. Raises TokenizerError where there is no vocabulary, where it is not a Rust tokenizer
    (no character offsets), where it cannot pad, and where its files are broken.
    """
    hide_broken_torchvision()  # some tokenizers' config classes import it
    from transformers import AutoTokenizer

    place = str(checkpoint)
    folder = Path(checkpoint)
    if folder.is_dir() and not any(next(folder.glob(pattern), None) for pattern in VOCABULARY_FILES):
        raise TokenizerError(
            "expected a tokenizer.json (or another vocabulary file), found none",
            place=place,
            cure="Save the tokenizer into this folder too.",
        )
    with rust_panics_as_errors(place):
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        except Exception as error:  # transformers raises anything from KeyError to RecursionError for a broken file
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            cure = "Give a folder that transformers' save_pretrained wrote, or a Hub name that can be reached; check its tokenizer files."
            raise TokenizerError(f"the tokenizer cannot be loaded: {reason[:300]}", place=place, cure=cure) from error
    _check_usable(tokenizer, place)
    if tokenizer.pad_token is not None:
        return tokenizer, ()
    return tokenizer, (_pad_with_end_token(tokenizer, place),)


def effective_max_length(
    tokenizer: "PreTrainedTokenizerBase", options: TokenOptions, positions: int | None = None
) -> tuple[int | None, Note | None]:
    """The most tokens of a row: the least of what was asked, what the tokenizer says and what the model has positions for.

    None where nobody says. The Note tells where the answer is not simply what was asked or what the tokenizer says. Put the answer into
    `options.max_length`: `encode` and `pad_spec` take that at its word, as transformers does.
    """
    said = asked_max_length(tokenizer, TokenOptions())
    known = [limit for limit in (said, positions) if limit is not None]
    limit = min(known, default=None)
    change = "Set TokenOptions.max_length."
    if options.max_length is not None:
        if limit is None or options.max_length <= limit:
            return options.max_length, None
        source = "the model has no more positions" if limit == positions else "the tokenizer allows no more"
        return limit, Note(
            f"max_length {limit} instead of {options.max_length}", source, f"Set TokenOptions.max_length to {limit} or less."
        )
    if limit is None:
        return None, Note("texts are not cut", "neither the tokenizer nor the model says how much it can read", change)
    if said is None:
        return limit, Note(f"max_length {limit}", "the positions of the model; the tokenizer does not say", change)
    if limit < said:
        return limit, Note(f"max_length {limit}", f"the positions of the model; the tokenizer claims {said}", change)
    return limit, None


def asked_max_length(tokenizer: "PreTrainedTokenizerBase", options: TokenOptions) -> int | None:
    """The length that transformers' own call would cut and pad to: what was asked, or else what the tokenizer says; None for neither."""
    if options.max_length is not None:
        return options.max_length
    stated = getattr(tokenizer, "model_max_length", None)
    return int(stated) if stated is not None and stated < UNKNOWN_LENGTH else None


def pad_spec(tokenizer: "PreTrainedTokenizerBase", options: TokenOptions, input_names: Collection[str] | None = None) -> PadSpec:
    """How this tokenizer pads under these options.

    A batch gets the inputs that the tokenizer says its model takes; of those, only `input_names` (what the forward accepts) where given.
    Raises TokenizerError without a pad token, SettingError where `max_length` is needed and unknown, or not a multiple of
    `pad_to_multiple_of`.
    """
    padding = options.padding_strategy
    max_length = asked_max_length(tokenizer, options)
    multiple = options.pad_to_multiple_of
    if padding != "do_not_pad":
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id < 0:
            raise TokenizerError(
                "the tokenizer has no pad token", cure="Set tokenizer.pad_token = tokenizer.eos_token, or use load_tokenizer."
            )
        if padding == "max_length" and max_length is None:
            raise SettingError(
                "padding='max_length' needs a length, and the tokenizer does not say one", cure="Set TokenOptions.max_length."
            )
        if multiple and max_length and max_length % multiple and options.truncation_strategy != "do_not_truncate":
            nearest = max_length // multiple * multiple or multiple
            raise SettingError(
                f"rows cut to {max_length} tokens cannot be padded to a multiple of {multiple}",
                cure=f"Set TokenOptions.max_length to {nearest}.",
            )
    return PadSpec(
        pad_id=tokenizer.pad_token_id or 0,
        pad_type_id=tokenizer.pad_token_type_id,
        side="left" if tokenizer.padding_side == "left" else "right",
        # GPT-2's forward takes token types, and looks them up in its words: only a tokenizer that has them may give them
        input_names=tuple(name for name in tokenizer.model_input_names if input_names is None or name in input_names),
        padding=padding,
        max_length=max_length,
        multiple_of=multiple,
    )


def fingerprint(tokenizer: "PreTrainedTokenizerBase", options: TokenOptions) -> str:
    """A hash of everything that decides which ids a text gets: the tokenizer's rules, vocabulary and side, and the options."""
    import tokenizers

    twin = private_twin(tokenizer, options.special_tokens_in_text)
    rest = [options.settings(), asked_max_length(tokenizer, options), tokenizer.truncation_side, tokenizers.__version__]
    rest += [getattr(tokenizer, name, None) for name in ("chat_template", "src_lang")]
    digest = blake2b(twin.to_str().encode("utf-8"), digest_size=20)
    digest.update(json.dumps(rest, sort_keys=True).encode("utf-8"))
    return digest.hexdigest()


def private_twin(tokenizer: "PreTrainedTokenizerBase", special_tokens_in_text: bool, spelled: tuple[str, ...] = ()) -> "Tokenizer":
    """A Rust tokenizer with the same rules and no truncation or padding, which shares the vocabulary: made in microseconds.

    `spelled` are special tokens that a text may hold in any case ("[MASK]"): here they are ordinary ones.
    The caller's tokenizer keeps its truncation, padding and special-token settings, which transformers' own call would change;
    so several threads may encode with one tokenizer and different options. Raises TokenizerError for one that is not Rust-backed.
    """
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        raise TokenizerError(
            f"{type(tokenizer).__name__} is a slow tokenizer, without character offsets",
            cure="Use a checkpoint with a tokenizer.json, or convert it with transformers.",
        )
    original: Tokenizer = tokenizer.backend_tokenizer
    twin = Tokenizer(original.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(original, part) is not None:
            setattr(twin, part, getattr(original, part))
    added = {number: _plain(token) if token.content in spelled else token for number, token in original.get_added_tokens_decoder().items()}
    for _, token in sorted(added.items()):
        (twin.add_special_tokens if token.special else twin.add_tokens)([token])
    if twin.get_added_tokens_decoder() != added:  # ids with gaps between them: only a whole copy keeps those
        twin = Tokenizer.from_str(_with_plain(original.to_str(), spelled))
        twin.no_truncation()
        twin.no_padding()
    twin.encode_special_tokens = not special_tokens_in_text
    if not special_tokens_in_text:
        _break_special_pieces(twin, [token.content for token in added.values() if token.special])
    return twin


def _plain(token: "AddedToken") -> "AddedToken":
    """The same token as an ordinary one, which is found in a text where special ones are not looked for."""
    from tokenizers import AddedToken

    sides = {"single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized}
    return AddedToken(token.content, special=False, **sides)


def _with_plain(described: str, spelled: tuple[str, ...]) -> str:
    """A tokenizer's JSON in which these tokens are ordinary ones."""
    if not spelled:
        return described
    content = json.loads(described)
    for token in content["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in spelled
    return json.dumps(content)


def _break_special_pieces(twin: "Tokenizer", contents: list[str]) -> None:
    """Keep the model itself from making a special token out of text.

    `encode_special_tokens` stops the search for special tokens before the model. A Unigram model (T5, XLM-R) also has "</s>" among its
    pieces and finds it in a text all the same, so such a piece is split after its first character, before the model sees it.
    """
    from tokenizers import Regex, pre_tokenizers

    reachable = [
        content
        for content in contents
        if len(content) > 1 and twin.token_to_id(content) in twin.encode(content, add_special_tokens=False).ids
    ]
    if not reachable:
        return
    firsts = sorted({content[0] for content in reachable})
    rests = ("|".join(re.escape(content[1:]) for content in reachable if content[0] == first) for first in firsts)
    pattern = "|".join(f"{re.escape(first)}(?={rest})" for first, rest in zip(firsts, rests, strict=True))
    guard = pre_tokenizers.Split(Regex(pattern), "isolated")
    before = twin.pre_tokenizer
    twin.pre_tokenizer = guard if before is None else pre_tokenizers.Sequence([before, guard])


@contextmanager
def rust_panics_as_errors(place: str = "") -> Iterator[None]:
    """Turn a Rust panic into a TokenizerError. A panic is no Exception, so that nothing else would catch it."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = f"the tokenizer failed inside: {str(error)[:200]}"
        raise TokenizerError(
            reason, place=place, cure="A pattern in its tokenizer.json may be too slow or broken; use another tokenizer."
        ) from error


def _check_usable(tokenizer: "PreTrainedTokenizerBase", place: str) -> None:
    if not tokenizer.is_fast:
        cure = "Use a checkpoint with a tokenizer.json, or convert it with transformers."
        raise TokenizerError(f"{type(tokenizer).__name__} is a slow tokenizer, without character offsets", place=place, cure=cure)
    vocabulary = set(tokenizer.get_vocab())
    plain = vocabulary - set(tokenizer.all_special_tokens) - set(tokenizer.get_added_vocab())
    if len(plain) <= 1:  # transformers makes up such a vocabulary where tokenizer.json is missing
        raise TokenizerError(
            f"the vocabulary has {len(vocabulary)} tokens and {len(plain)} of them are text",
            place=place,
            cure="Its tokenizer.json is missing or empty; save the tokenizer into the checkpoint again.",
        )


def _pad_with_end_token(tokenizer: "PreTrainedTokenizerBase", place: str) -> Note:
    if tokenizer.eos_token is None:
        raise TokenizerError(
            "the tokenizer has no pad token and no end token", place=place, cure="Set tokenizer.pad_token and save it again."
        )
    tokenizer.pad_token = tokenizer.eos_token
    why = "the tokenizer has no pad token; padding is masked, so the model does not see it"
    return Note(f"{tokenizer.eos_token!r} pads", why, "Set tokenizer.pad_token and save the tokenizer.")
