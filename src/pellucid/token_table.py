"""The tokens of many rows as columns, and the settings that made them.

Takes flat numpy arrays and plain settings. Gives frozen tables that `tokens` fills, `batch` pads and `token_cache` stores.
Knows nothing of tokenizers, files, models or torch.

A table of a million rows is a handful of arrays: token ids stand one after the other, `starts` says where each window begins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError
from pellucid.types import IntArray

PaddingStrategy = Literal["longest", "max_length", "do_not_pad"]
TruncationStrategy = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
LongPolicy = Literal["truncate", "windows", "chunk-and-join"]
WindowPooling = Literal["mean", "max", "first"]


@dataclass(frozen=True, slots=True)
class LongTexts:
    """What happens to a text that is longer than the model reads, in training as in prediction.

    `truncate` cuts it, `windows` reads it in windows that share `stride` tokens with the one before, `chunk-and-join` in windows that
    share nothing and whose answers are put one after the other. `pooling` makes one answer a row of several windows where a task answers
    with one vector of numbers: their mean (weighted by tokens), their maximum, or the first window alone.
    Of a pair only the second text is read in windows; the first stands in each of them. Raises SettingError for a value outside of these.
    """

    policy: LongPolicy = "truncate"
    stride: int = 0  # tokens
    pooling: WindowPooling = "mean"

    def __post_init__(self) -> None:
        for name, choices in (("policy", get_args(LongPolicy)), ("pooling", get_args(WindowPooling))):
            if getattr(self, name) not in choices:
                cure = f"Use one of: {', '.join(choices)}."
                raise SettingError(f"{name} of long texts is {getattr(self, name)!r}", place=name, cure=cure)
        if isinstance(self.stride, bool) or not isinstance(self.stride, int) or self.stride < 0:
            raise SettingError(f"stride is a number of tokens from 0 up, not {self.stride!r}", place="stride", cure="0 shares nothing.")
        if self.stride and self.policy != "windows":
            cure = "Use LongTexts('windows', stride=…), or leave stride out."
            raise SettingError(f"the policy {self.policy!r} has no stride", place="stride", cure=cure)

    @property
    def in_windows(self) -> bool:
        """Whether a long text is read whole."""
        return self.policy != "truncate"

    def __str__(self) -> str:
        stride = f" sharing {self.stride} tokens" if self.stride else ""
        return f"long texts: {self.policy}{stride}"


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How texts become tokens and batches, in the words of Hugging Face's tokenizers.

    `padding`: True or "longest" (to the longest row of the batch), "max_length", False or "do_not_pad".
    `truncation`: True or "longest_first", "only_first", "only_second", False or "do_not_truncate".
    `max_length`: tokens of a row with its special tokens; None means what the tokenizer says.
    `special_tokens_in_text`: False keeps a "[SEP]" that somebody wrote as plain text; True reads it as the special token.
    `long`: what happens to texts beyond `max_length`; None means what the task does.
    Raises SettingError for a value outside of these.
    """

    padding: bool | PaddingStrategy = True
    truncation: bool | TruncationStrategy = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    special_tokens_in_text: bool = False
    long: LongTexts | None = None

    def __post_init__(self) -> None:
        _check_choice("padding", self.padding, get_args(PaddingStrategy))
        _check_choice("truncation", self.truncation, get_args(TruncationStrategy))
        _check_count("max_length", self.max_length)
        _check_count("pad_to_multiple_of", self.pad_to_multiple_of)
        _check_choice("special_tokens_in_text", self.special_tokens_in_text, ())
        if self.long is not None and self.long.in_windows and self.truncation_strategy == "do_not_truncate":
            cure = "Leave truncation at True: windows are cut at max_length."
            raise SettingError("long texts in windows, but nothing may be cut", place="truncation", cure=cure)

    @property
    def padding_strategy(self) -> PaddingStrategy:
        """`padding` by its full name."""
        if isinstance(self.padding, bool):
            return "longest" if self.padding else "do_not_pad"
        return self.padding

    @property
    def truncation_strategy(self) -> TruncationStrategy:
        """`truncation` by its full name."""
        if isinstance(self.truncation, bool):
            return "longest_first" if self.truncation else "do_not_truncate"
        return self.truncation

    def settings(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"long": None if self.long is None else asdict(self.long)}

    def describe(self) -> str:
        """One line for a person: "padding longest, truncation longest_first, max_length 512"."""
        length = f", max_length {self.max_length}" if self.max_length is not None else ""
        multiple = f", padded to a multiple of {self.pad_to_multiple_of}" if self.pad_to_multiple_of is not None else ""
        special = ", special tokens in texts are read as such" if self.special_tokens_in_text else ""
        long = f", {self.long}" if self.long is not None and self.long.in_windows else ""
        return f"padding {self.padding_strategy}, truncation {self.truncation_strategy}{length}{multiple}{special}{long}"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TokenOptions":
        """The options again, from what `settings` gave. Raises SettingError for an unknown field."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise SettingError(f"token options have no field {unknown[0]!r}", cure=f"The fields are {', '.join(known)}.")
        given = {name: settings[name] for name in known if name in settings}
        return cls(**given | {"long": LongTexts(**given["long"]) if given.get("long") else None})


@dataclass(frozen=True, slots=True)
class PadSpec:
    """How windows of different lengths become one rectangle."""

    pad_id: int
    pad_type_id: int = 0
    side: Literal["left", "right"] = "right"
    input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    padding: PaddingStrategy = "longest"
    max_length: int | None = None  # tokens; the width where padding is "max_length"
    multiple_of: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """The token ids of many windows, one after the other, with what belongs to each window.

    A window is what the model reads at once; a row has one, or more where its text was cut into windows.
    `rows` are positions in the table of rows that was encoded (0 is its first row).
    """

    ids: npt.NDArray[np.int32]  # (all tokens,) special tokens included, no padding
    starts: npt.NDArray[np.int64]  # (windows + 1,) window i is ids[starts[i]:starts[i + 1]]
    rows: npt.NDArray[np.int64]  # (windows,)
    windows: npt.NDArray[np.int32]  # (windows,) number of the window within its row
    type_ids: npt.NDArray[np.uint8] | None  # (all tokens,); None where every one is 0
    labels: npt.NDArray[Any] | None  # (windows,) or (windows, labels); with `label_starts` (all labels,), windows one after the other
    lost: npt.NDArray[np.int32]  # (windows,) tokens that truncation cut; for texts read in part (see `tokens.encode`) an estimate
    lost_words: npt.NDArray[np.int32]  # (windows,) words, split at white space, that truncation cut, or cut into
    label_starts: npt.NDArray[np.int64] | None = None  # (windows + 1,) where a window has several labels; `starts` for one a token

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each window, (windows,)."""
        return np.diff(self.starts)

    @property
    def has_token_labels(self) -> bool:
        """Whether every token has a label of its own."""
        if self.label_starts is None or self.label_starts is self.starts:
            return self.label_starts is not None
        return int(self.label_starts[-1]) == int(self.starts[-1]) and np.array_equal(self.label_starts, self.starts)

    def ids_of(self, window: int) -> npt.NDArray[np.int32]:
        """The unpadded ids of the window at this position of the table. Raises SettingError beyond the table."""
        if not 0 <= window < len(self):
            raise SettingError(f"the table has {len(self)} windows, asked for window {window}", cure="Count from 0.")
        return self.ids[self.starts[window] : self.starts[window + 1]]

    def with_labels(self, labels: npt.NDArray[Any] | None) -> "TokenTable":
        """The same tokens with these labels, one a window. Raises SettingError for another number of them."""
        if labels is not None and len(labels) != len(self):
            raise SettingError(f"{len(self)} windows but {len(labels)} labels", cure="Give one label a window, in table order.")
        return replace(self, labels=labels, label_starts=None)

    def with_row_labels(self, labels: npt.NDArray[Any]) -> "TokenTable":
        """The same tokens with these labels, one a row, given to each window of the row."""
        return self.with_labels(labels[self.rows] if len(labels) else labels)

    def with_token_labels(self, labels: npt.NDArray[Any]) -> "TokenTable":
        """The same tokens with a label each, (all tokens,). Raises SettingError for another number of them."""
        if len(labels) != len(self.ids):
            raise SettingError(f"{len(self.ids)} tokens but {len(labels)} labels", cure="Give one label a token, in table order.")
        return replace(self, labels=labels, label_starts=self.starts)

    def with_label_sequences(self, sequences: Sequence[IntArray]) -> "TokenTable":
        """The same tokens with a sequence of label ids for each window. Raises SettingError for another number of them."""
        if len(sequences) != len(self):
            raise SettingError(f"{len(self)} windows but {len(sequences)} sequences of labels", cure="Give one a window, in table order.")
        starts = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
        return replace(self, labels=np.concatenate([np.zeros(0, np.int32), *sequences]).astype(np.int32), label_starts=starts)

    @staticmethod
    def concatenate(tables: Sequence["TokenTable"]) -> "TokenTable":
        """The tables one below the other; their `rows` stay as they are. Raises SettingError for none, or labels in some only."""
        if not tables:
            raise SettingError("no table to concatenate", cure="Give at least one; encode() of no rows gives an empty one.")
        if len({table.labels is None for table in tables}) == 2:
            raise SettingError("some tables have labels and some have none", cure="Encode all chunks with targets, or all without.")
        return TokenTable(
            ids=np.concatenate([table.ids for table in tables]),
            starts=_joined_starts([table.starts for table in tables]),
            rows=np.concatenate([table.rows for table in tables]),
            windows=np.concatenate([table.windows for table in tables]),
            type_ids=_joined_type_ids(tables),
            labels=None if tables[0].labels is None else np.concatenate([np.asarray(table.labels) for table in tables]),
            lost=np.concatenate([table.lost for table in tables]),
            lost_words=np.concatenate([table.lost_words for table in tables]),
            label_starts=_joined_starts([table.label_starts for table in tables if table.label_starts is not None]),
        )


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """What truncation costs: how many texts are cut, and how many of their words the model never sees."""

    rows: int
    texts_cut: int
    words: int
    words_lost: int

    @classmethod
    def of(cls, table: TokenTable, texts: Iterable[str]) -> "TruncationReport":
        """Count over a table and all texts that went into it (a pair is two texts). Words are split at white space."""
        words = sum(len(text.split()) for text in texts)
        rows = len(np.unique(table.rows))
        return cls(rows, int(np.count_nonzero(table.lost)), words, int(table.lost_words.sum()))

    @property
    def share_cut(self) -> float:
        """Rows with a cut text, 0 to 1."""
        return self.texts_cut / self.rows if self.rows else 0.0

    @property
    def share_lost(self) -> float:
        """Words that are lost, 0 to 1."""
        return min(self.words_lost / self.words, 1.0) if self.words else 0.0  # those of targets are among the lost, too


def ragged_positions(starts: IntArray, counts: IntArray) -> npt.NDArray[np.int64]:
    """The positions start, start + 1, … of each stretch, `counts` of them, one stretch after the other: (sum of counts,)."""
    counts = np.asarray(counts, dtype=np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(np.asarray(starts, dtype=np.int64) - (ends - counts), counts) + np.arange(total, dtype=np.int64)


def _joined_starts(starts: Sequence[npt.NDArray[np.int64]]) -> Any:
    """The starts of several tables one after the other; None where there are none."""
    if not starts:
        return None
    ends = np.cumsum([0, *(each[-1] for each in starts)])
    return np.concatenate([*(each[:-1] + end for each, end in zip(starts, ends, strict=False)), ends[-1:]]).astype(np.int64)


def _joined_type_ids(tables: Sequence[TokenTable]) -> npt.NDArray[np.uint8] | None:
    if all(table.type_ids is None for table in tables):
        return None
    return np.concatenate([np.zeros(len(table.ids), np.uint8) if table.type_ids is None else table.type_ids for table in tables])


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if isinstance(value, bool) or (isinstance(value, str) and value in choices):
        return
    allowed = ", ".join(["True", "False", *map(repr, choices)])
    raise SettingError(f"{name} is one of {allowed}, not {value!r}", cure="The names are those of Hugging Face's tokenizers.")


def _check_count(name: str, value: object) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return
    raise SettingError(
        f"{name} is a whole number of tokens from 1 up, or None; not {value!r}", cure=f"Leave {name} out, or give such a number."
    )
