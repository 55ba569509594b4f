"""One pass of a model over a batch.

Takes a model and a batch of numpy arrays or tensors. Gives outputs on the model's device, float32 arrays, and pooled vectors of the body.
Knows nothing of where the model came from, of tasks or of training.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pellucid.errors import SettingError, TokenizerError
from pellucid.types import Batch, FloatArray, IntArray, Output, Want

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

Pooling = Literal["mean", "cls", "last", "max"]
Run = Callable[["PreTrainedModel", Batch, Want], Output]
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
PER_TOKEN = frozenset(  # types of model whose head of words reads each token by itself, without dropout
    ("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "longformer", "modernbert", "mpnet", "roberta", "xlm-roberta")
)
_RELATIVE = frozenset(("t5", "mt5", "umt5", "longt5", "switch_transformers", "xlnet", "transfo-xl"))
_ROBERTA_LIKE = (  # their positions start at padding_idx + 1
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "longformer", "data2vec-text"),
    *("xmod", "luke", "mluke", "ibert", "esm", "layoutlmv3", "lilt", "markuplm"),
)


def accepted_inputs(model: "PreTrainedModel") -> frozenset[str]:
    """The names of the inputs that the model's forward takes."""
    return frozenset(inspect.signature(model.forward).parameters) - {"self", "args", "kwargs"}


@contextmanager
def inference(model: "PreTrainedModel") -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode comes back afterwards.

    Not torch's inference mode: buffers that a model caches meanwhile (rotary positions) must still serve in training.
    """
    import torch

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def forward(model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
    """One forward pass: numpy arrays or tensors in, tensors on the model's device out, with their graph where gradients are on.

    Raises SettingError for an input that the forward does not take, TokenizerError for ids or lengths beyond the embeddings.
    """
    accepted = accepted_inputs(model)
    strange = sorted(set(batch.inputs) - accepted)
    if strange:
        raise SettingError(
            f"{type(model).__name__} does not take the input {strange[0]!r}; it takes {', '.join(sorted(accepted))}",
            place="batch.inputs",
            cure="Leave it out in the task's `collate`.",
        )
    _check_ids(model, batch)
    arguments: dict[str, Any] = dict(_tensors(model, batch))
    if "use_cache" in accepted:
        arguments["use_cache"] = False
    arguments |= _positions_after_padding(model, arguments, accepted)
    with _attending(model, want.attentions):
        given = model(**arguments, output_hidden_states=want.hidden_states, output_attentions=want.attentions, return_dict=True)
    logits = _logits_of(given)
    hidden = given.get("hidden_states") or given.get("encoder_hidden_states") or ()
    attentions = given.get("attentions") or given.get("encoder_attentions") or ()
    return Output(logits, None, tuple(hidden) if want.hidden_states else (), tuple(attentions) if want.attentions else ())


def forward_at(model: "PreTrainedModel", batch: Batch, where: "torch.Tensor") -> Output:
    """The logits of the tokens that `where` (batch, tokens) marks, row after row: (marked, vocabulary); those of `forward`, no others.

    Where the head reads each token by itself (PER_TOKEN), it is not even run on the rest.
    """
    body: Any = model.base_model
    apart = False

    def marked(module: Any, given: Any, output: Any) -> Any:
        nonlocal apart
        hidden = output["last_hidden_state"]  # (batch, tokens, hidden)
        apart = hidden.shape[:2] == where.shape
        return type(output)(**{**output, "last_hidden_state": hidden[where][None]}) if apart else output

    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in (model, body))  # hooks would be built in
    if model.config.model_type not in PER_TOKEN or body is model or compiled:
        return Output(forward(model, batch).logits[where])
    hook = body.register_forward_hook(marked)
    try:
        logits = forward(model, batch).logits
    finally:
        hook.remove()
    return Output(logits[0] if apart else logits[where])


def to_numpy(output: Output) -> Output:
    """The same output as float32 numpy arrays, off the device and without a graph."""
    loss = None if output.loss is None else _array(output.loss)
    hidden, attentions = tuple(map(_array, output.hidden_states)), tuple(map(_array, output.attentions))
    ids, lengths = (None if part is None else _integers(part) for part in (output.ids, output.lengths))
    return Output(_array(output.logits), loss, hidden, attentions, ids, lengths)


def losses_of(model: "PreTrainedModel", batch: Batch, run: Run, loss: Loss) -> tuple[FloatArray, IntArray]:
    """The loss of each entry of a labelled batch, (batch,), and how many labels it is the mean of: as training sees it, no gradients."""
    import torch

    with inference(model):
        found = loss(run(model, batch, Want()).logits, torch.as_tensor(np.asarray(batch.labels)).to(model.device))
    labels = np.asarray(batch.labels)
    counts = (labels != -100).sum(axis=1) if labels.ndim == 2 and labels.dtype.kind in "iu" else np.ones(len(labels), dtype=np.int64)
    return _array(found), counts


def features(model: "PreTrainedModel", batch: Batch, pooling: Pooling = "mean", layer: int = -1) -> FloatArray:
    """What `vectors` gives, in evaluation mode and without gradients: (batch, hidden) float32."""
    with inference(model):
        return _array(vectors(model, batch, pooling, layer).logits)


def vectors(model: "PreTrainedModel", batch: Batch, pooling: Pooling = "mean", layer: int = -1, want: Want = Want()) -> Output:
    """One vector a batch entry from the body alone, as `logits` (batch, hidden) float32; padding never counts.

    Of an encoder-decoder the encoder is the body. `layer` numbers the hidden states: 0 the embeddings, -1 the last. `cls` is the first
    token that is not padding. Raises SettingError for an unknown pooling or a layer that is not there.
    """
    import torch

    if pooling not in ("mean", "cls", "last", "max"):
        raise SettingError(f"pooling is {pooling!r}, not one of mean, cls, last, max", place="pooling", cure="Use pooling='mean'.")
    body: Any = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    _check_ids(model, batch)
    accepted = accepted_inputs(body)
    tensors = _tensors(model, batch)
    inputs: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if name in accepted}
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    padded = tensors.get("attention_mask")  # (batch, tokens)
    if padded is not None and "position_ids" in accepted and model.config.model_type not in _ROBERTA_LIKE and not bool(padded[:, 0].all()):
        inputs["position_ids"] = (padded.long().cumsum(1) - 1).clamp(min=0)  # padding on the left takes no positions
    with _attending(model, want.attentions):
        wanted = want.hidden_states or layer != -1
        given = body(**inputs, output_hidden_states=wanted, output_attentions=want.attentions, return_dict=True)
    states = given["hidden_states"] if layer != -1 else (given["last_hidden_state"],)
    if not -len(states) <= layer < len(states):
        raise SettingError(f"layer is {layer}, but the body gives {len(states)}", place="layer", cure="Use layer=-1 for the last.")
    hidden = states[layer].float()  # (batch, tokens, hidden)
    mask = torch.ones_like(hidden[..., 0], dtype=torch.bool) if padded is None else padded.bool()
    layers = tuple(given["hidden_states"]) if want.hidden_states else ()
    return Output(_pool(hidden, mask, pooling), None, layers, tuple(given["attentions"]) if want.attentions else ())


def max_positions(config: "PreTrainedConfig") -> int | None:
    """The most tokens that the position embeddings reach, special tokens included; None where positions are relative."""
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not isinstance(found, int) or found <= 0 or config.model_type in _RELATIVE:
        return None
    if config.model_type in _ROBERTA_LIKE:
        return found - int(config.pad_token_id if config.pad_token_id is not None else 1) - 1
    return found


def aligned(array: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """The entries with what `mask` (batch, tokens) marks at their beginning, in order: (batch, tokens, …) → the same shape."""
    import torch

    order = torch.argsort((~mask.bool()).long(), dim=1, stable=True)  # (batch, tokens)
    return array[torch.arange(len(array), device=array.device)[:, None], order]


def set_pad_token(model: "PreTrainedModel", pad_id: int) -> None:
    """Tell the model which id is padding: decoders look for the last real token with it."""
    model.config.pad_token_id = int(pad_id)


@contextmanager
def _attending(model: "PreTrainedModel", wanted: bool) -> Iterator[None]:
    """Attention that says its weights, where they are wanted: sdpa computes none."""
    implementation = model.config._attn_implementation
    switch = wanted and implementation != "eager"
    if switch:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if switch:
            model.set_attn_implementation(implementation)


def _tensors(model: "PreTrainedModel", batch: Batch) -> "Mapping[str, torch.Tensor]":
    import torch

    return {name: torch.as_tensor(array).to(model.device) for name, array in batch.inputs.items()}  # each (batch, tokens)


def _positions_after_padding(model: "PreTrainedModel", inputs: Mapping[str, Any], accepted: frozenset[str]) -> dict[str, Any]:
    """Positions that count from the first real token, where padding stands before it; RoBERTa and its kin count so by themselves."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.ndim != 2 or "position_ids" not in accepted or "position_ids" in inputs:
        return {}
    if model.config.model_type in _ROBERTA_LIKE or bool(mask[:, :1].all()):
        return {}
    return {"position_ids": (mask.long().cumsum(dim=-1) - 1).clamp(min=0)}  # (batch, tokens)


def _logits_of(given: Any) -> "torch.Tensor":
    """What a head gives: logits, of question answering the scores of both ends (batch, tokens, 2), without a head the last hidden state."""
    import torch

    if "logits" in given:
        return given["logits"]
    if "start_logits" in given:
        return torch.stack((given["start_logits"], given["end_logits"]), dim=-1)
    return given["last_hidden_state"]


def _array(tensor: Any) -> FloatArray:
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float32, copy=False)
    found: FloatArray = tensor.detach().float().cpu().numpy()
    return found


def _integers(array: Any) -> IntArray:
    found: IntArray = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
    return found


def _pool(hidden: "torch.Tensor", mask: "torch.Tensor", pooling: Pooling) -> "torch.Tensor":
    """(batch, tokens, hidden) and a bool mask (batch, tokens) → (batch, hidden)."""
    import torch

    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return pooled
    if pooling == "max":
        return hidden.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)
    places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    far = mask.shape[1]
    chosen = places.masked_fill(~mask, far).amin(1).clamp(max=far - 1) if pooling == "cls" else places.masked_fill(~mask, 0).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


def check_reach(model: "PreTrainedModel", ids: IntArray, longest: int) -> None:
    """Whether the model has an embedding for each of these ids, and positions for the longest row. Raises TokenizerError."""
    known, reach = int(model.get_input_embeddings().weight.shape[0]), max_positions(model.config)
    if ids.size and int(ids.max()) >= known:
        cure = "Use the tokenizer that belongs to this checkpoint."
        raise TokenizerError(f"token id {int(ids.max())} is outside the model's {known} embeddings", place="the rows", cure=cure)
    if reach is not None and longest > reach:
        cure = f"Truncate: TokenOptions(max_length={reach})."
        raise TokenizerError(f"{longest} tokens, but the model reaches {reach}", place="the longest row", cure=cure)


def _check_ids(model: "PreTrainedModel", batch: Batch) -> None:
    """Ids and lengths beyond the embeddings are found here: on a GPU they would kill the process."""
    ids = batch.inputs.get("input_ids")
    if ids is None or not isinstance(ids, np.ndarray):
        return
    known = int(model.get_input_embeddings().weight.shape[0])
    if ids.size and (int(ids.max()) >= known or int(ids.min()) < 0):
        entry = int(np.argmax(((ids >= known) | (ids < 0)).any(axis=1)))
        raise TokenizerError(
            f"token id {int(ids[entry].max())} is outside the model's {known} embeddings",
            place=f"row {int(batch.rows[entry])}",
            cure="Use the tokenizer that belongs to this checkpoint.",
        )
    reach = max_positions(model.config)
    if reach is not None and ids.shape[1] > reach:
        raise TokenizerError(
            f"{ids.shape[1]} tokens, but the model reaches {reach}",
            place=f"row {int(batch.rows[int(np.argmax(batch.lengths))])}",
            cure=f"Truncate: TokenOptions(max_length={reach}).",
        )
