"""A pipeline that begins with nothing but random numbers.

Takes a task, the sizes or the config of a model, and a tokenizer. Gives a pipeline of which every weight is new, and says so.
Knows nothing of training or of where the tokenizer comes from.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

from pellucid.errors import SettingError
from pellucid.pipelines import Pipeline
from pellucid.process import hide_broken_torchvision, quiet_transformers
from pellucid.provenance import Origin, Provenance
from pellucid.types import Note

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from pellucid.data import Rows
    from pellucid.task import Task
    from pellucid.tokens import TokenOptions

ScratchFamily = Literal["bert", "modernbert", "roberta", "distilbert", "gpt2", "llama"]
_ROTARY = ("modernbert", "llama")  # families that turn pairs of numbers, so that a head's width is even
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
_MORE_IDS = ("cls_token_id", "sep_token_id")  # for the configs that have them


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """A small model by its sizes: `layers` blocks of width `hidden` with `heads` attention heads, a middle of `inner`.

    `inner` is 4 × hidden if not given, and 2 × hidden for modernbert, which has a gate of the same size beside it. `positions` is the most
    tokens it will ever read. Raises SettingError for sizes that do not fit each other.
    """

    family: ScratchFamily = "bert"
    layers: int = 4
    hidden: int = 128
    heads: int = 4
    inner: int | None = None
    positions: int = 128

    def __post_init__(self) -> None:
        families = get_args(ScratchFamily)
        if self.family not in families:
            near = get_close_matches(str(self.family).lower(), families, n=1, cutoff=0.4)
            guess = f"Did you mean {near[0]!r}? " if near else ""
            cure = f"{guess}There are: {', '.join(families)}; or pass a config of transformers."
            raise SettingError(f"there is no family {self.family!r}", place="family", cure=cure)
        for name, least in (("layers", 1), ("hidden", 1), ("heads", 1), ("inner", 1), ("positions", 8)):
            value = getattr(self, name)
            if value is None and name == "inner":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SettingError(
                    f"{name} is {value!r}, expected a whole number from {least} up", place=name, cure=f"Pass {name}={least}."
                )
        pair = 2 if self.family in _ROTARY else 1
        if self.hidden % (pair * self.heads):
            fitting = [heads for heads in (8, 4, 2, 1) if self.hidden % (pair * heads) == 0]
            cure = f"Take heads={fitting[0]}, or another width." if fitting else "Take a width that is even."
            raise SettingError(f"{self.heads} heads cannot share a width of {self.hidden}", place="heads", cure=cure)

    def config(self, vocabulary: int) -> "PreTrainedConfig":
        """The config of transformers for a vocabulary of that many tokens."""
        import transformers

        inner = self.inner or (2 if self.family == "modernbert" else 4) * self.hidden
        usual = {"hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads}
        usual |= {"intermediate_size": inner, "max_position_embeddings": self.positions, "vocab_size": vocabulary}
        match self.family:
            case "gpt2":
                sizes = {"n_embd": self.hidden, "n_layer": self.layers, "n_head": self.heads, "n_inner": inner}
                return transformers.GPT2Config(n_positions=self.positions, vocab_size=vocabulary, **sizes)
            case "llama":
                return transformers.LlamaConfig(**{**usual, "num_key_value_heads": self.heads})
            case "distilbert":
                sizes = {"dim": self.hidden, "n_layers": self.layers, "n_heads": self.heads, "hidden_dim": inner}
                return transformers.DistilBertConfig(max_position_embeddings=self.positions, vocab_size=vocabulary, **sizes)
            case "modernbert":  # its own ids lie beyond a small vocabulary
                return transformers.ModernBertConfig(**{**usual, **dict.fromkeys(_IDS + _MORE_IDS)})
            case "roberta":  # its positions are counted from the pad token's id on
                return transformers.RobertaConfig(**{**usual, "type_vocab_size": 1})
        return transformers.BertConfig(**usual)


def from_config(
    task: "str | Task",
    config: "ModelSizes | PreTrainedConfig",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    rows: "Rows | None" = None,
    seed: int = 42,
    tokens: "TokenOptions | None" = None,
) -> Pipeline:
    """A pipeline with random weights, as the config's own initialisation draws them from `seed`; the provenance says "new" throughout.

    The config gets the size of the vocabulary and the ids of its special tokens. torch's own random numbers are left as they were.
    Raises SettingError, CheckpointError for a config that makes no model for the task, and what `Pipeline.new` raises.
    """
    hide_broken_torchvision()
    import torch
    from transformers import AutoModel

    plan = config.config(len(tokenizer)) if isinstance(config, ModelSizes) else deepcopy(config)
    _fit(plan, tokenizer)
    with TemporaryDirectory(prefix="pellucid-") as place, torch.random.fork_rng():
        torch.manual_seed(seed)
        folder = Path(place) / plan.model_type  # a folder with a random body: the way to a pipeline is the same as for any checkpoint
        with quiet_transformers():
            AutoModel.from_config(plan, trust_remote_code=False).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        pipe = Pipeline.new(task, folder, rows, tokens=tokens)
    name = f"{plan.model_type} from its config"
    every = tuple(one if one.origin is Origin.TIED else replace(one, origin=Origin.NEW) for one in pipe.provenance.parameters)
    note = Note(
        "every weight began as a random number", f"the model was made from a config, seed {seed}", "Train it before you ask it anything."
    )
    return replace(pipe, provenance=Provenance(name, every), checkpoint=name, notes=(note, *pipe.notes))


def _fit(config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Give a config the vocabulary of the tokenizer: its size, and the ids that models look for."""
    plan: Any = config
    plan.vocab_size = len(tokenizer)
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}  # what encoders call them
    for name in (*_IDS, *(name for name in _MORE_IDS if hasattr(plan, name))):
        number = getattr(tokenizer, name, None)
        setattr(plan, name, ends.get(name) if number is None else number)
    if plan.model_type == "roberta":
        plan.max_position_embeddings += plan.pad_token_id + 1
