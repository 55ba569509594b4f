"""Every task on every architecture that the course names, from tiny random configs: what a cell does, and what it must show."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pellucid as pl
from pellucid.pipelines import Pipeline
from pellucid.task import with_settings
from pellucid.tasks import task_class
from pellucid.testing import CHECKS, Subject

ENCODER, DECODER, BOTH = "encoder", "decoder", "encoder-decoder"
STEPS, RATE = 5, 5e-3


@dataclass(frozen=True)
class Architecture:
    """A model family in small: its config, and the tokenizer that goes with it. `gone` says why transformers 5 has none."""

    name: str
    family: str
    config: str
    tokenizer: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    gone: str = ""


PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
POSITIONS = {"max_position_embeddings": 130}
ROBERTA_IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
SEQ = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
SEQ |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 130}
SEQ |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
T5 = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
T5 |= {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
GPT_IDS = {"bos_token_id": 0, "eos_token_id": 0}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("ALBERT", ENCODER, "AlbertConfig", "wordpiece", {**PLAIN, **POSITIONS, "embedding_size": 16}),
    Architecture("BERT", ENCODER, "BertConfig", "wordpiece", {**PLAIN, **POSITIONS}),
    Architecture(
        "DistilBERT", ENCODER, "DistilBertConfig", "wordpiece", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, **POSITIONS}
    ),
    Architecture("ELECTRA", ENCODER, "ElectraConfig", "wordpiece", {**PLAIN, **POSITIONS, "embedding_size": 16}),
    Architecture("RoBERTa", ENCODER, "RobertaConfig", "unigram", {**PLAIN, **POSITIONS, **ROBERTA_IDS}),
    Architecture("XLM-R", ENCODER, "XLMRobertaConfig", "unigram", {**PLAIN, **POSITIONS, **ROBERTA_IDS}),
    Architecture("CamemBERT", ENCODER, "CamembertConfig", "unigram", {**PLAIN, **POSITIONS, **ROBERTA_IDS}),
    Architecture(
        "DeBERTa-v2",
        ENCODER,
        "DebertaV2Config",
        "unigram",
        {
            **PLAIN,
            **POSITIONS,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "pad_token_id": 1,
        },
    ),
    Architecture(
        "ModernBERT",
        ENCODER,
        "ModernBertConfig",
        "wordpiece",
        {
            **PLAIN,
            **POSITIONS,
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "global_attn_every_n_layers": 2,
        },
    ),
    Architecture("MPNet", ENCODER, "MPNetConfig", "unigram", {**PLAIN, **POSITIONS, "pad_token_id": 1}),
    Architecture("Longformer", ENCODER, "LongformerConfig", "unigram", {**PLAIN, **POSITIONS, **ROBERTA_IDS, "attention_window": 8}),
    Architecture("XLNet", ENCODER, "XLNetConfig", "left", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "pad_token_id": 1}),
    Architecture("CTRL", DECODER, "CTRLConfig", "bpe", {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 130}),
    Architecture("GPT", DECODER, "OpenAIGPTConfig", "bpe", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 130}),
    Architecture("GPT-2", DECODER, "GPT2Config", "bpe", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 130, **GPT_IDS}),
    Architecture("GPT-NeoX", DECODER, "GPTNeoXConfig", "bpe", {**PLAIN, **POSITIONS, **GPT_IDS}),
    Architecture("Llama", DECODER, "LlamaConfig", "bpe", {**PLAIN, **POSITIONS, **GPT_IDS, "num_key_value_heads": 2}),
    Architecture("Qwen", DECODER, "Qwen2Config", "bpe", {**PLAIN, **POSITIONS, **GPT_IDS, "num_key_value_heads": 2}),
    Architecture("Transformer-XL", DECODER, "", "", gone="transformers 5 has it no more"),
    Architecture("BART", BOTH, "BartConfig", "unigram", SEQ),
    Architecture("mBART", BOTH, "MBartConfig", "unigram", SEQ),
    Architecture("M2M100", BOTH, "M2M100Config", "unigram", SEQ),
    Architecture("Marian", BOTH, "MarianConfig", "unigram", {**SEQ, "decoder_start_token_id": 1}),
    Architecture("Pegasus", BOTH, "PegasusConfig", "unigram", {**SEQ, "decoder_start_token_id": 1}),
    Architecture(
        "ProphetNet",
        BOTH,
        "ProphetNetConfig",
        "unigram",
        {
            "hidden_size": 32,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 130,
            **ROBERTA_IDS,
            "decoder_start_token_id": 0,
        },
    ),
    Architecture("T5", BOTH, "T5Config", "unigram", T5),
    Architecture("mT5", BOTH, "MT5Config", "unigram", T5),
)


@dataclass(frozen=True)
class Column:
    """A task of the matrix: its tag, the head of transformers that it needs, and whether the checkpoint must bring that head along."""

    tag: str
    head: str
    whole: bool = False  # the head was pretrained with the body


COLUMNS: tuple[Column, ...] = (
    Column("text-classification", "AutoModelForSequenceClassification"),
    Column("token-classification", "AutoModelForTokenClassification"),
    Column("question-answering", "AutoModelForQuestionAnswering"),
    Column("fill-mask", "AutoModelForMaskedLM", whole=True),
    Column("text-generation", "AutoModelForCausalLM", whole=True),
    Column("text2text-generation", "AutoModelForSeq2SeqLM", whole=True),
    Column("zero-shot-classification", "AutoModelForSequenceClassification", whole=True),
    Column("feature-extraction", "AutoModel"),
)
NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}
SETTINGS = {
    "text-generation": ["max_new_tokens=8"],
    "text2text-generation": ["max_new_tokens=8"],
    "zero-shot-classification": ["candidate_labels=city,film"],
}
UNTRAINED = ("zero-shot-classification", "feature-extraction")
TEXTS = (
    "Peter lives in Berlin.",
    "Dull.",
    "I would watch it again, and again, with Maria Curie in Paris!",
    "A mess",
    "Ada Lovelace wrote it in London, slowly at first and then all of it.",
    "Madrid",
)
NAMED = ("Berlin", "", "Paris", "", "London", "Madrid")
PLACES = tuple(((text.index(name), text.index(name) + len(name)),) if name else () for text, name in zip(TEXTS, NAMED, strict=True))
ALL = pl.ReadOptions(valid_fraction=0.0)


def rows_for(tag: str, mask: str | None) -> pl.Rows:
    """Six rows of different lengths with targets of the task, where it has any."""
    if tag == "text-classification":
        return pl.read([{"text": t, "label": n} for t, n in zip(TEXTS, "abcabc", strict=True)], text="text", label="label", options=ALL)
    if tag == "token-classification":
        spans = [[{"start": start, "end": end, "label": "place"} for start, end in places] for places in PLACES]
        rows = [{"text": text, "entities": each} for text, each in zip(TEXTS, spans, strict=True)]
        return pl.read(rows, text="text", label="entities", options=replace(ALL, label_kind="spans"))
    if tag == "question-answering":
        rows = []
        for text, places in zip(TEXTS, PLACES, strict=True):
            start, end = places[0] if places else (0, 1)
            answers = {"text": [text[start:end]], "answer_start": [start]}
            rows.append({"question": "Where is it?", "context": text, "answers": answers})
        return pl.read(rows, text="question", text_pair="context", label="answers", options=replace(ALL, label_kind="answers"))
    if tag == "text2text-generation":
        rows = [{"text": text, "target": text[:8]} for text in TEXTS]
        return pl.read(rows, text="text", label="target", options=replace(ALL, label_kind="text"))
    texts = [f"{mask} {text}" for text in TEXTS] if tag == "fill-mask" else list(TEXTS)
    return pl.read([{"text": text} for text in texts], text="text", label=False, options=ALL)


def padded_left(tokenizer: Any) -> Any:
    """XLNet's way: padding on the left, the special tokens at the end."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    other = deepcopy(tokenizer)
    ends = [("<s>", 0), ("</s>", 2)]
    single, pair = "$A </s> <s>", "$A </s> $B </s> <s>"
    other.backend_tokenizer.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    other.padding_side = other.init_kwargs["padding_side"] = "left"
    return other


def tokenizers_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizers by the names that `ARCHITECTURES` use."""
    return {**made, "left": padded_left(made["unigram"])}


def checkpoint(architecture: Architecture, column: Column, tokenizer: Any, folder: Path) -> str:
    """Write a tiny random checkpoint and its tokenizer; gives why transformers has no such head, or "" where it has."""
    import torch
    import transformers

    settings = {**architecture.settings, "vocab_size": len(tokenizer)}
    if column.tag == "zero-shot-classification":
        settings |= {"id2label": NLI, "label2id": {name: number for number, name in NLI.items()}}
    config = getattr(transformers, architecture.config)(**settings)
    head = getattr(transformers, column.head)
    if type(config) not in head._model_mapping:
        return f"transformers has no {column.head.removeprefix('AutoModelFor')} head for it"
    if column.tag == "fill-mask" and architecture.family == BOTH:
        return "it fills masks by writing the text again: see text2text-generation"
    if column.tag == "text-generation" and architecture.family != DECODER:
        return "it is no language model from left to right: its causal head is for a decoder inside another model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (head if column.whole else transformers.AutoModel).from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ""


def subject(architecture: Architecture, column: Column, tokenizer: Any, folder: Path) -> Subject | str:
    """A pipeline of this task on this architecture, with its rows; or why there is none."""
    import torch

    if architecture.gone:
        return architecture.gone
    why = checkpoint(architecture, column, tokenizer, folder / "checkpoint")
    if why:
        return why
    rows = rows_for(column.tag, tokenizer.mask_token)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        task = with_settings(task_class(column.tag)(), SETTINGS.get(column.tag, ()))
        learned = None if column.tag in UNTRAINED else rows
        pipe = Pipeline.new(task, folder / "checkpoint", learned, tokens=pl.TokenOptions(max_length=64))
    return Subject(pipe, rows.train, folder)


def losses(found: Subject, steps: int = STEPS) -> list[float]:
    """The loss of one batch before each of five steps, and after them; without dropout."""
    import numpy as np
    import torch

    pipe = found.pipe
    table = pipe.task.to_learn(pipe.encode(found.split))
    batch = pipe.task.drawn(pipe.collate(table, np.arange(len(table))), 0)
    model = pipe.model.eval()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=RATE)
    seen = []
    for step in range(steps + 1):
        loss = pipe.task.loss(pipe.task.run(model, batch).logits, torch.as_tensor(np.asarray(batch.labels))).mean()
        seen.append(float(loss))
        if step < steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return seen


def examined(found: Subject) -> list[float]:
    """Run the contract and the five steps; gives the losses, none for what is not trained. Raises what does not hold."""
    for check in CHECKS:
        check(found)
    return [] if found.pipe.task.tag in UNTRAINED else losses(found)
