"""Tiny random models that write: encoder-decoders with and without languages, and decoders; each with a tokenizer of its kind."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
SHARED = Path(__file__).resolve().parents[2] / "shared"
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
SIDES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
SIDES |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 80, **IDS}
CONFIGS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {  # kind → config, head, settings
    "t5": (
        "T5Config",
        "AutoModelForSeq2SeqLM",
        {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, **IDS, "decoder_start_token_id": 1},
    ),
    "bart": ("BartConfig", "AutoModelForSeq2SeqLM", {**SIDES, "decoder_start_token_id": 2, "forced_eos_token_id": 2}),
    "mbart": ("MBartConfig", "AutoModelForSeq2SeqLM", SIDES),
    "mbart50": ("MBartConfig", "AutoModelForSeq2SeqLM", {**SIDES, "decoder_start_token_id": 2}),
    "m2m100": ("M2M100Config", "AutoModelForSeq2SeqLM", {**SIDES, "decoder_start_token_id": 2}),
    "marian": ("MarianConfig", "AutoModelForSeq2SeqLM", {**SIDES, "decoder_start_token_id": 1}),
    "gpt2": ("GPT2Config", "AutoModelForCausalLM", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 80}),
    "llama": (
        "LlamaConfig",
        "AutoModelForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 80},
    ),
}


def real(name: str) -> Path:
    """The folder of a real checkpoint; the test is skipped where it is not on the machine."""
    folder = SHARED / "checkpoints" / name if name == "stories15M" else CHECKPOINTS / name
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"the checkpoint {name} is not in {folder.parent} (set CHECKPOINTS)")
    return folder


def writer(kind: str, tokenizer: Any, folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Write a tiny random checkpoint with this tokenizer."""
    import torch
    import transformers

    config_name, head, own = CONFIGS[kind]
    given = {**own, **(settings or {})}
    if kind in ("gpt2", "llama"):
        given |= {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    config = getattr(transformers, config_name)(vocab_size=len(tokenizer), **given)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, head).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pieces_of(tokenizer: Any) -> list[tuple[str, float]]:
    """The pieces of a Unigram tokenizer with their scores, without special ones."""
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in vocabulary if not piece.startswith("<")]


def multilingual(kind: str, unigram: Any) -> Any:
    """A tokenizer with languages, as "mbart", "mbart50", "m2m100" and "marian" have them, over the pieces of a Unigram tokenizer."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    if kind in ("mbart", "mbart50"):
        made = getattr(transformers, {"mbart": "MBartTokenizer", "mbart50": "MBart50Tokenizer"}[kind])
        return made(vocab=[*special, *pieces_of(unigram)], src_lang="en_XX", model_max_length=64)
    codes = ["__en__", "__es__", "__de__"] if kind == "m2m100" else []
    marks = [(">>es<<", 0.0), (">>de<<", 0.0)] if kind == "marian" else []
    backend = Tokenizer(models.Unigram([*special, *marks, *pieces_of(unigram)], unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)])
    backend.add_special_tokens([AddedToken(code, special=True, normalized=False) for code in codes])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    inputs = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, model_input_names=inputs, extra_special_tokens=codes, **names
    )


CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
