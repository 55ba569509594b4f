"""Texts made token by token, by a model that writes.

Takes a model, the inputs of a batch and how to search or draw. Gives the ids that were chosen with the log-probability of each, or the text
as it comes. Knows nothing of rows, tasks or files; the loop over the tokens is transformers' own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pellucid.errors import SettingError, TokenizerError
from pellucid.forwarding import accepted_inputs, check_reach, inference
from pellucid.process import quiet_transformers
from pellucid.types import Array, Note, Output

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_ID = -1  # in the ids of a candidate that is shorter than the longest
WITHOUT_CACHE = ("prophetnet",)  # whose plain generate() fails with a cache in transformers 5.23: "`position_ids` are incorrect"
NUMBERS_AT_ONCE = 1 << 25  # logits that are held at a time when chosen tokens are scored: 128 MiB
DEFAULTS: Mapping[str, Any] = {
    "max_new_tokens": 128,
    "min_new_tokens": 0,
    "num_beams": 1,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
DRAWING = ("temperature", "top_k", "top_p")  # what counts only where tokens are drawn
LEAST: Mapping[str, float] = {"max_new_tokens": 1, "num_beams": 1, "num_return_sequences": 1, "top_k": 0}


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a text is made; None means what the checkpoint says, and else the usual.

    `num_beams` above 1 searches, `do_sample` draws (from `seed`; another batch of rows then draws other texts), neither takes the most
    likely token each time. `num_return_sequences` texts are given for a row, the best first. `stop` are strings that end a text, which are
    not part of it. Raises SettingError for a value outside of what is possible.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    num_beams: int | None = None
    num_return_sequences: int = 1
    length_penalty: float | None = None  # of a text with n tokens: the sum of its log-probabilities is divided by n to this power
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, problem in problems(self):
            raise SettingError(problem, place=name, cure="Leave it out for what the checkpoint says.")


def problems(options: Any) -> Iterator[tuple[str, str]]:
    """The settings whose values are not possible, with what is wrong. `options` has the fields of GenerationOptions."""
    for name in (*DEFAULTS, "num_return_sequences", "seed"):
        value = getattr(options, name)
        if value is None or name == "do_sample":
            continue
        whole = name not in ("length_penalty", "repetition_penalty", "temperature", "top_p")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            yield name, f"expected a {'whole number' if whole else 'number'}, came {value!r}"
        elif name in ("repetition_penalty", "temperature") and not value > 0:
            yield name, f"expected a number above 0, came {value}"
        elif name == "top_p" and not 0 < value <= 1:
            yield name, f"expected a share above 0 and up to 1, came {value}"
        elif name != "length_penalty" and value < LEAST.get(name, 0):
            yield name, f"expected {LEAST.get(name, 0)} or more, came {value}"
    if isinstance(options.stop, str) or not all(isinstance(text, str) and text for text in options.stop):
        yield "stop", f"expected strings that are not empty, came {options.stop!r}"
    beams = options.num_beams or options.num_return_sequences
    if options.num_return_sequences > beams and not (options.do_sample and beams == 1):
        yield "num_return_sequences", f"{options.num_return_sequences} texts from {options.num_beams} beams"


def generation_of(task: Any) -> GenerationOptions:
    """The options among the settings of a task that has fields of the same names."""
    return GenerationOptions(**{field.name: getattr(task, field.name) for field in fields(GenerationOptions)})


def resolved(
    asked: GenerationOptions, model: "PreTrainedModel", also: Mapping[str, Any], usual: Mapping[str, Any]
) -> tuple[GenerationOptions, tuple[Note, ...]]:
    """The options with what the checkpoint says for each that nobody asked for, and a note of that.

    `also` are settings of the checkpoint for this very task, which go before its general ones; `usual` what is taken where nobody says,
    before DEFAULTS. Tokens are drawn only where that was asked for: the same text is to give the same answer.
    """
    config: Any = model.generation_config
    said: dict[str, Any] = {name: getattr(config, name, None) for name in (*DEFAULTS, "max_length", "min_length")} | dict(also)
    if model.config.is_encoder_decoder:  # its lengths count the token that the decoder starts with
        for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if said.get(new) is None and said.get(whole):
                said[new] = max(int(said[whole]) - 1, 1)
    notes: tuple[Note, ...] = ()
    if said.pop("do_sample", None) and asked.do_sample is None:
        notes = (Note("the most likely tokens are taken", "the checkpoint's settings draw them", "do_sample=True draws."),)
    if not asked.do_sample and asked.num_beams is None and asked.num_return_sequences > (said["num_beams"] or 1):
        asked = replace(asked, num_beams=asked.num_return_sequences)
        notes += (Note(f"num_beams {asked.num_beams}", "so many texts are asked for a row", "do_sample=True draws them."),)
    given = {name: usual.get(name, value) if said.get(name) is None else said[name] for name, value in DEFAULTS.items()}
    taken: dict[str, Any] = {name: value for name, value in given.items() if getattr(asked, name) is None}
    odd = [f"{name} {value}" for name, value in taken.items() if value != usual.get(name, DEFAULTS[name]) and name not in DRAWING]
    if odd:
        notes += (Note(f"texts are made with {', '.join(odd)}", "the checkpoint says so", "Set them in the task."),)
    return replace(asked, **taken), notes


def generate(
    model: "PreTrainedModel",
    inputs: Mapping[str, Array],
    options: GenerationOptions,
    *,
    start: int | None = None,
    forced: int | None = None,
) -> Output:
    """The texts that a model makes of the inputs (batch, tokens): ids and log-probabilities, each (batch, tokens, candidates), and lengths.

    Where the model reads and writes with one stack, padding must stand on the left. `start` is the id that a decoder begins with, `forced`
    the one that it must write first. Log-probabilities are the model's own, before temperature and penalties. The ids include the token
    that ends a text; -1 stands where a candidate is shorter. `lengths` (batch,) are those of the longest candidates.
    Raises TokenizerError for ids or lengths that the model has no embedding for.
    """
    import torch

    tensors = {name: torch.as_tensor(array).to(model.device) for name, array in inputs.items()}
    ids = tensors["input_ids"]
    check_reach(model, ids.cpu().numpy(), int(ids.shape[1]))
    given = {"decoder_start_token_id": start, "forced_bos_token_id": forced, "pad_token_id": model.config.pad_token_id}
    given |= {"use_cache": False} if model.config.model_type in WITHOUT_CACHE else {}
    with seeded(model, options), quiet_transformers(), inference(model):
        sequences = model.generate(
            **tensors, **arguments_of(options), **{name: value for name, value in given.items() if value is not None}
        )
        first = 1 if model.config.is_encoder_decoder else int(ids.shape[1])
        scores = log_probabilities(model, tensors, sequences, first)  # (batch × candidates, new tokens)
    made = sequences[:, first:]
    lengths = lengths_of(made, model)
    places = torch.arange(made.shape[1], device=made.device) < lengths[:, None]
    shape = (len(ids), options.num_return_sequences, made.shape[1])
    made, scores = made.masked_fill(~places, NO_ID).reshape(shape), scores.masked_fill(~places, 0.0).reshape(shape)
    return Output(scores.transpose(1, 2), ids=made.transpose(1, 2), lengths=lengths.reshape(shape[:2]).amax(1))


def arguments_of(options: GenerationOptions) -> dict[str, Any]:
    """The options in the words of transformers' `generate`."""
    unused = ("stop", "seed", *(() if options.do_sample else DRAWING))
    given = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in unused}
    if not given["min_new_tokens"]:
        given.pop("min_new_tokens")
    return {name: value for name, value in given.items() if value is not None}


def lengths_of(made: "torch.Tensor", model: "PreTrainedModel") -> "torch.Tensor":
    """How many tokens each text has, up to the first that ends it: (texts, tokens) → (texts,)."""
    import torch

    config: Any = model.generation_config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    last = torch.isin(made, torch.tensor([end for end in ends if end is not None], device=made.device, dtype=made.dtype))
    places = torch.arange(1, made.shape[1] + 1, device=made.device).expand(made.shape)
    return places.masked_fill(~last, made.shape[1]).amin(1)


def log_probabilities(
    model: "PreTrainedModel", inputs: Mapping[str, "torch.Tensor"], sequences: "torch.Tensor", first: int
) -> "torch.Tensor":
    """The log-probability that the model gives each token from position `first` on: (texts, width) → (texts, width - first).

    One more pass, some texts at a time: keeping the logits of every step would take width × vocabulary numbers for each of them.
    """
    import torch

    accepted = accepted_inputs(model)
    copies = len(sequences) // len(inputs["input_ids"])
    known = {name: tensor.repeat_interleave(copies, dim=0) for name, tensor in inputs.items()}
    if model.config.is_encoder_decoder:
        known["decoder_input_ids"] = sequences[:, :-1]
    else:
        mask = known.get("attention_mask", torch.ones_like(known["input_ids"]))
        mask = torch.cat([mask, mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])], dim=1)[:, :-1]
        known |= {"input_ids": sequences[:, :-1], "attention_mask": mask}
        known |= {"position_ids": positions_of(mask)} if "position_ids" in accepted else {}
    extra = {"use_cache": False} if "use_cache" in accepted else {}
    new = sequences.shape[1] - first
    if "logits_to_keep" in accepted and not model.config.is_encoder_decoder:
        extra["logits_to_keep"] = new
    rows = max(1, NUMBERS_AT_ONCE // (sequences.shape[1] * int(model.get_input_embeddings().weight.shape[0])))
    found = []
    for start in range(0, len(sequences), rows):
        part = {name: tensor[start : start + rows] for name, tensor in known.items()}
        logits = model(**part, **extra, return_dict=True).logits[:, -new:].float()  # (texts, new tokens, vocabulary)
        chosen = sequences[start : start + rows, first:, None]
        found.append(logits.gather(-1, chosen)[..., 0] - logits.logsumexp(-1))
    return torch.cat(found)


def positions_of(mask: Array) -> Array:
    """The position of each token among those that count, (batch, tokens): left padding must not shift it."""
    return (mask.cumsum(1) - 1).clip(0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the texts that were made for a row: what it says, the sum of its log-probabilities, and over how many tokens."""

    text: str
    total: float
    tokens: int

    def score(self, length_penalty: float | None) -> float:
        """The log-probability a token, or whatever `length_penalty` makes of it: what beams are ranked by."""
        return self.total / max(self.tokens, 1) ** (1.0 if length_penalty is None else length_penalty)


def candidates_of(output: Output, entry: int, spell: Callable[[Sequence[int]], str], stop: tuple[str, ...]) -> list[Candidate]:
    """The texts of one entry of an output of `generate`, in its order; `spell` turns ids into text."""
    if output.ids is None:
        raise SettingError("the output holds no ids", place="output", cure="Run with Want(answers=True).")
    found = []
    for ids, scores in zip(output.ids[entry].T, output.logits[entry].T, strict=True):  # (tokens,) each
        there = ids >= 0
        text = cut_at(spell(ids[there].tolist()), stop)
        found.append(Candidate(text, float(scores[there].astype("float64").sum()), int(there.sum())))
    return found


def continued(spell: Callable[[Sequence[int]], str], ids: Sequence[int]) -> str:
    """How ids read after another text: with the space before the first word, which a text of their own would begin without."""
    anchor = next((one for one in ids if spell([one])), None)  # any id with a text will do as what stands before
    if anchor is None:
        return spell(ids)
    alone, together = spell([anchor]), spell([anchor, *ids])
    return together[len(alone) :] if together.startswith(alone) else spell(ids)


def cut_at(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first of the strings that end it."""
    places = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(places)] if places else text


@contextmanager
def seeded(model: "PreTrainedModel", options: GenerationOptions) -> Iterator[None]:
    """Draws follow from the seed, and the draws of everybody else go on as if nothing had been."""
    import torch

    if not options.do_sample:
        yield
        return
    with torch.random.fork_rng(devices=[] if model.device.type == "cpu" else [model.device], device_type=model.device.type):
        torch.manual_seed(options.seed)
        yield


def stream_text(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    inputs: Mapping[str, Array],
    options: GenerationOptions,
    *,
    seconds: float = 60.0,
) -> Iterator[str]:
    """The text that follows one prompt, piece by piece as it is made; the pieces joined are the whole.

    Whoever stops asking ends the work. Raises SettingError for beams, or for several texts, which have no text before the end;
    TokenizerError where no token came for `seconds`, and what the model raises.
    """
    if (options.num_beams or 1) > 1 or options.num_return_sequences > 1 or len(inputs["input_ids"]) != 1:
        cure = "Set num_beams=1 and num_return_sequences=1, and pass one prompt."
        raise SettingError("several texts at once cannot be streamed", place="stream", cure=cure)
    held = max(map(len, options.stop), default=1) - 1  # so many characters may be the beginning of a string that ends the text
    text = given = ""
    for piece in pieces_of(model, tokenizer, inputs, options, seconds):
        text += piece
        whole = cut_at(text, options.stop)
        ready = whole if len(whole) < len(text) else text[: max(len(given), len(text) - held)]
        if len(ready) > len(given):
            yield ready[len(given) :]
            given = ready
        if len(whole) < len(text):
            return
    if len(text) > len(given):
        yield text[len(given) :]


def pieces_of(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    inputs: Mapping[str, Array],
    options: GenerationOptions,
    seconds: float,
) -> Iterator[str]:
    """What transformers' streamer says while `generate` runs in a thread of its own."""
    from queue import Empty
    from threading import Event, Thread

    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=seconds, skip_special_tokens=True)
    left, failed = Event(), []
    tensors = {name: torch.as_tensor(array).to(model.device) for name, array in inputs.items()}

    def ended(ids: "torch.Tensor", scores: Any) -> "torch.Tensor":
        return torch.full((len(ids),), left.is_set(), device=ids.device)

    def work() -> None:
        try:
            with seeded(model, options), inference(model):
                extra = {"streamer": streamer, "stopping_criteria": StoppingCriteriaList([ended])}
                model.generate(**tensors, **arguments_of(options), **extra, pad_token_id=model.config.pad_token_id)
        except Exception as error:  # it must reach whoever reads, whatever it is
            failed.append(error)
            streamer.end()

    thread = Thread(target=work, name="pellucid-stream", daemon=True)
    thread.start()
    try:
        yield from streamer
    except Empty as error:
        cure = "Pass a larger `seconds`, or a shorter prompt."
        raise TokenizerError(f"no token came within {seconds:g} seconds", place="stream", cure=cure) from error
    finally:
        left.set()
        thread.join(seconds)
    if failed:
        raise failed[0]
