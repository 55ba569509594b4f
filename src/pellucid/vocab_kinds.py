"""The kinds of vocabulary, and the special tokens that families of models need.

Takes VocabularyOptions. Gives the parts of a tokenizer (model, trainer, normalizer, pre-tokenizer, decoder) as the package tokenizers has
them, and the special tokens with their places. Knows nothing of texts, rows, models or weights.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from pellucid.errors import SettingError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

VocabularyKind = Literal["word", "character", "bpe", "byte-bpe", "wordpiece", "unigram"]
ModelFamily = Literal["bert", "roberta", "gpt2", "llama", "t5"]
EXACT = frozenset(("bpe", "byte-bpe", "wordpiece", "unigram"))  # these reach the size that was asked for; the others stay at or below it
USUAL_FREQUENCY = 2
CHARACTER_STEP = 1e-4  # between the likelihoods that Unigram's trainer makes up for rare characters


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of a family: the name that transformers gives a token → the token, in the order of their ids."""

    names: Mapping[str, str]
    single: str  # where they stand in one text, and in two
    pair: str
    inputs: tuple[str, ...]  # what a model of the family is given

    @property
    def tokens(self) -> tuple[str, ...]:
        """Each token once, in the order of their ids."""
        return tuple(dict.fromkeys(self.names.values()))


_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
_GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": "<|unk|>"}
_LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
_T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_PLAIN = ("input_ids", "attention_mask")
FAMILIES: Mapping[str, SpecialTokens] = MappingProxyType(
    {
        "bert": SpecialTokens(_BERT, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("input_ids", "token_type_ids", "attention_mask")),
        "roberta": SpecialTokens({**_ROBERTA, "cls_token": "<s>", "sep_token": "</s>"}, "<s> $A </s>", "<s> $A </s> </s> $B </s>", _PLAIN),
        "gpt2": SpecialTokens(_GPT2, "$A", "$A $B", _PLAIN),
        "llama": SpecialTokens(_LLAMA, "<s> $A", "<s> $A <s> $B", _PLAIN),
        "t5": SpecialTokens(_T5, "$A </s>", "$A </s> $B </s>", _PLAIN),
    }
)


@dataclass(frozen=True, slots=True)
class VocabularyOptions:
    """What a vocabulary is to be like.

    `kind`: "word" and "character" keep the most frequent ones and call the rest unknown; "bpe", "byte-bpe", "wordpiece" and "unigram" learn
    pieces. `size` counts all tokens, special ones too: exact for pieces, a ceiling for words and characters. `family` says which special
    tokens there are and where they stand. `min_frequency` is how often a word or a pair of pieces must occur: 2 where nobody says; Unigram
    has no such thing. `max_length` is what the tokenizer will say that its model reads. At most `most_texts` are learned from, drawn with
    `seed` (None: all of them; then nothing is drawn). Raises SettingError for a value outside of these.
    """

    kind: VocabularyKind = "wordpiece"
    size: int = 8000
    family: ModelFamily = "bert"
    lowercase: bool = False
    strip_accents: bool = False
    min_frequency: int | None = None
    max_length: int = 512
    most_texts: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        _check_name("kind", self.kind, get_args(VocabularyKind))
        _check_name("family", self.family, get_args(ModelFamily))
        least = len(FAMILIES[self.family].tokens) + 1
        for name, low in (("size", least), ("min_frequency", 1), ("max_length", 8), ("most_texts", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name in ("min_frequency", "most_texts"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise SettingError(f"{name} is {value!r}, expected a whole number from {low} up", place=name, cure=f"Pass {low} or more.")
        if self.kind == "unigram" and self.min_frequency is not None:
            cure = "Leave min_frequency out, or take another kind."
            raise SettingError("Unigram weighs pieces by how likely they are and has no least frequency", place="min_frequency", cure=cure)

    @property
    def special(self) -> SpecialTokens:
        """The special tokens. Bytes know no unknown character, so GPT-2's bytes have no unknown token."""
        family = FAMILIES[self.family]
        if self.family != "gpt2" or self.kind != "byte-bpe":
            return family
        names = {name: token for name, token in family.names.items() if name != "unk_token"}
        return SpecialTokens(names, family.single, family.pair, family.inputs)


def untrained(options: VocabularyOptions, first: Sequence[str] = ()) -> tuple["Tokenizer", Any]:
    """A tokenizer of that kind with nothing in its vocabulary, and the trainer that fills it.

    `first` are pieces that get the ids after the special tokens. The trainer gives them as special tokens: `finished` mends that.
    """
    tokenizer, trainer = _MAKERS[options.kind](options)
    if first:
        trainer.special_tokens = [*special_tokens(options), *first]
    return tokenizer, trainer


def finished(trained: "Tokenizer", options: VocabularyOptions) -> "Tokenizer":
    """The trained tokenizer with its special tokens, and no others, at the ends of a text."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer(_in_order(trained, options) if options.kind == "unigram" else trained.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(trained, part) is not None:
            setattr(tokenizer, part, getattr(trained, part))
    tokenizer.add_special_tokens(special_tokens(options))
    special = options.special
    ids = [(token, number) for number, token in enumerate(special.tokens)]
    template = processors.TemplateProcessing(single=special.single, pair=special.pair, special_tokens=ids)
    if options.kind == "byte-bpe":  # without the space before a word in its offsets
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    else:
        tokenizer.post_processor = template
    return tokenizer


def _in_order(trained: "Tokenizer", options: VocabularyOptions) -> Any:
    """The pieces of Unigram by likelihood, equal ones by spelling; likelihoods to a millionth.

    The trainer sums in an order that is another one each time, so that the last digits differ. And rare characters, which it keeps whatever
    their likelihood, it puts at the end one small step after the other, in such an order too: here they stand by spelling.
    """
    from tokenizers import models

    found = [(piece, round(score, 6)) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
    count = len(options.special.tokens)
    special, pieces = found[:count], dict(found[count:])
    characters = [piece for piece in pieces if len(piece) == 1]
    end = min(pieces.values(), default=0.0) + CHARACTER_STEP * len(characters)
    rare = sorted(piece for piece in characters if pieces[piece] <= end)
    pieces |= dict(zip(rare, sorted((pieces[piece] for piece in rare), reverse=True), strict=True))
    unknown = _unknown(options)
    ordered = sorted(pieces.items(), key=lambda pair: (-pair[1], pair[0]))
    return models.Unigram([*special, *ordered], None if unknown is None else options.special.tokens.index(unknown))


def words_of(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    """A tokenizer that keeps every word as that kind cuts a text into words, and its trainer."""
    from tokenizers import Tokenizer, models, trainers

    like, _ = _MAKERS[options.kind](options)
    tokenizer = Tokenizer(models.WordLevel())
    tokenizer.normalizer, tokenizer.pre_tokenizer = like.normalizer, like.pre_tokenizer
    return tokenizer, trainers.WordLevelTrainer(vocab_size=2**31 - 1, min_frequency=0, show_progress=False)


def special_tokens(options: VocabularyOptions) -> list["str | AddedToken"]:
    """The special tokens in the order of their ids; RoBERTa's mask takes in the space before it."""
    from tokenizers import AddedToken

    mask = options.special.names.get("mask_token") if options.family == "roberta" else None
    wide = AddedToken(mask or "", lstrip=True, normalized=False, special=True)
    return [wide if token == mask else token for token in options.special.tokens]


def _settings(options: VocabularyOptions, *, frequency: bool = True) -> dict[str, Any]:
    """What every trainer is told."""
    told = {"vocab_size": options.size, "special_tokens": special_tokens(options), "show_progress": False}
    return {**told, "min_frequency": options.min_frequency or USUAL_FREQUENCY} if frequency else told


def _unknown(options: VocabularyOptions) -> str | None:
    return options.special.names.get("unk_token")


def _normalizer(options: VocabularyOptions, first: str | None) -> Any:
    """Unicode's own form first, where one is named; then lower case and letters without accents, where that is asked for."""
    from tokenizers import normalizers

    parts = [] if first is None else [getattr(normalizers, first)()]
    parts += [normalizers.Lowercase()] if options.lowercase else []
    parts += [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()] if options.strip_accents else []
    return normalizers.Sequence(parts) if parts else None


def _word(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=_unknown(options)))
    tokenizer.normalizer = _normalizer(options, "NFC")
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # a space between words, none before a full stop
    return tokenizer, trainers.WordLevelTrainer(**_settings(options))


def _character(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=_unknown(options)))
    tokenizer.normalizer = _normalizer(options, "NFC")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer, trainers.WordLevelTrainer(**_settings(options))


def _bpe(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=_unknown(options), fuse_unk=True))
    tokenizer.normalizer = _normalizer(options, "NFC")
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer, trainers.BpeTrainer(**_settings(options))


def _byte_bpe(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(options, None)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **_settings(options))


def _wordpiece(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=_unknown(options)))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=options.strip_accents, lowercase=options.lowercase)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return tokenizer, trainers.WordPieceTrainer(**_settings(options))


def _unigram(options: VocabularyOptions) -> tuple["Tokenizer", Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = _normalizer(options, "NFKC")
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(unk_token=_unknown(options), **_settings(options, frequency=False))


_MAKERS: Mapping[str, Callable[[VocabularyOptions], tuple["Tokenizer", Any]]] = MappingProxyType(
    {
        "word": _word,
        "character": _character,
        "bpe": _bpe,
        "byte-bpe": _byte_bpe,
        "wordpiece": _wordpiece,
        "unigram": _unigram,
    }
)


def _check_name(name: str, value: object, known: tuple[str, ...]) -> None:
    if value in known:
        return
    near = get_close_matches(str(value).lower(), known, n=1, cutoff=0.4)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    raise SettingError(f"there is no {name} {value!r}", place=name, cure=f"{guess}There are: {', '.join(known)}.")
