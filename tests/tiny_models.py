"""Tiny random models of thirteen architectures with a classification head, made on the spot."""

from typing import Any

VOCABULARY = 40


_SIZE = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_SHORT = {"max_position_embeddings": 40}
_DISENTANGLED = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
_TWO_SIDES = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {**_SIZE, **_SHORT}),
    "distilbert": ("DistilBertConfig", {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, **_SHORT}),
    "roberta": ("RobertaConfig", {**_SIZE, **_SHORT}),
    "albert": ("AlbertConfig", {**_SIZE, **_SHORT, "embedding_size": 8}),
    "electra": ("ElectraConfig", {**_SIZE, **_SHORT, "embedding_size": 8}),
    "deberta-v2": ("DebertaV2Config", {**_SIZE, **_SHORT, **_DISENTANGLED}),
    "modernbert": ("ModernBertConfig", {**_SIZE, **_SHORT, "pad_token_id": 0, "global_attn_every_n_layers": 2}),
    "mpnet": ("MPNetConfig", {**_SIZE, **_SHORT}),
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0}),
    "llama": ("LlamaConfig", {**_SIZE, **_SHORT, "num_key_value_heads": 1, "pad_token_id": 0}),
    "t5": (
        "T5Config",
        {"vocab_size": VOCABULARY, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    ),
    "bart": ("BartConfig", {"vocab_size": VOCABULARY, "d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, **_TWO_SIDES, **_SHORT}),
    "xlnet": ("XLNetConfig", {"vocab_size": VOCABULARY, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}),
}
ARCHITECTURES = tuple(_CONFIGS)


def tiny_architecture(kind: str) -> Any:
    """The config of a model with two small layers."""
    import transformers

    name, settings = _CONFIGS[kind]
    return getattr(transformers, name)(**settings)


def tiny_classifier(kind: str, labels: int = 2) -> Any:
    """A random classifier of that architecture."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = tiny_architecture(kind)
    config.num_labels = labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()
