"""A pipeline as a transformer of scikit-learn: texts in, vectors out, kept on disk so that a head trains in seconds.

Takes the name of a checkpoint, a saved folder or a pipeline, and texts. Gives arrays (texts, hidden), and maps of them in two dimensions.
Knows nothing of heads, scores or how a vector is made: the task feature-extraction says that.
"""

import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from pellucid.errors import DataError, SettingError, need
from pellucid.files import atomic_folder, write_npy
from pellucid.given import as_split
from pellucid.manifest import MANIFEST
from pellucid.pipelines import Pipeline
from pellucid.store import load
from pellucid.task import settings_of
from pellucid.tasks.embeddings import FeatureExtraction, finished
from pellucid.tokens import fingerprint
from pellucid.types import FloatArray

if TYPE_CHECKING:
    from pellucid.data import Split

KEYS, VECTORS = "keys.npy", "vectors.npy"
KEY_BYTES = 16
OF_NO_MEANING = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")  # of a config, to the vectors
Known = dict[bytes, int]  # the key of a text → its place among the vectors


class PipelineFeatures(TransformerMixin, BaseEstimator):
    """Texts as vectors, as a step of scikit-learn: inside its Pipeline, `cross_val_score` and `GridSearchCV`.

    `pipe` is "minilm", a folder, a name on the Hub, or a pipeline (its body makes the vectors, whatever its task). `pooling`, `normalize`,
    `prompt` and `layer` are those of FeatureExtraction; None leaves what the pipeline says, or the checkpoint. `cache` is a folder: the
    vector of a text that was seen before, by the same weights and settings, comes from there. There is nothing to fit.
    Clones share the model. Raises SettingError, CheckpointError, TokenizerError and DataError when texts are transformed.
    """

    def __init__(
        self,
        pipe: str | os.PathLike[str] | Pipeline = "minilm",
        *,
        pooling: Literal["mean", "cls", "last", "max"] | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        layer: int | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self.pipe, self.pooling, self.normalize = pipe, pooling, normalize
        self.prompt, self.layer, self.cache = prompt, layer, cache
        self._opened: dict[str, Pipeline] = {}  # shared between clones

    def fit(self, X: object, y: object = None) -> Self:
        """Nothing to fit."""
        return self

    def transform(self, X: object) -> FloatArray:
        """The vectors of texts, (texts, hidden) float32: a list, a Series, an array, or a frame with one column of texts."""
        split = as_split(X, ("text",))
        pipe = self.pipeline()
        if self.cache is None:
            return vectors_of(pipe, split)
        return cached(Path(self.cache) / f"vectors-{key_of(pipe)}", split, partial(vectors_of, pipe))

    def pipeline(self) -> Pipeline:
        """The pipeline that makes the vectors: opened when it is first needed."""
        given = {"pooling": self.pooling, "normalize": self.normalize, "prompt": self.prompt, "layer": self.layer}
        settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if isinstance(self.pipe, Pipeline):
            base = self.pipe
        else:
            name = os.fspath(self.pipe)
            if name not in self._opened:
                self._opened[name] = opened(self.pipe)
            base = self._opened[name]
        task = base.task if isinstance(base.task, FeatureExtraction) else FeatureExtraction()
        return replace(base, task=replace(task, compare=False, **settings))

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """A name for each number of a vector: (hidden,)."""
        width = vectors_of(self.pipeline(), as_split(["a"], ("text",))).shape[1]
        return np.array([f"pipelinefeatures{number}" for number in range(width)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = True, False, True
        return tags

    def __sklearn_clone__(self) -> Self:
        twin = type(self)(**self.get_params(deep=False))  # a deep copy of a model would cost its memory again
        twin._opened = self._opened
        for name in ("_sklearn_output_config", "_metadata_request"):
            if hasattr(self, name):
                setattr(twin, name, deepcopy(getattr(self, name)))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.pipe, Pipeline):
            cure = "Save it with pl.save, and pass the folder: PipelineFeatures('folder'); or stay in one process (n_jobs=None)."
            raise SettingError("a pipeline is not pickled", place="PipelineFeatures.pipe", cure=cure)
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_opened": {}}


def opened(checkpoint: str | os.PathLike[str]) -> Pipeline:
    """A folder that pellucid saved, or a checkpoint as its bare body."""
    name = os.fspath(checkpoint)
    if os.path.exists(os.path.join(name, MANIFEST)):
        return load(name)
    return Pipeline.new("feature-extraction", checkpoint if isinstance(checkpoint, str) else Path(name))


def vectors_of(pipe: Pipeline, split: "Split") -> FloatArray:
    """The vectors of all rows, (rows, hidden) float32; raises SettingError for a task that makes none."""
    if not isinstance(pipe.task, FeatureExtraction):
        raise SettingError(f"the task {pipe.task.tag} makes no vectors", place="task", cure="Use FeatureExtraction().")
    return finished(pipe.task, pipe.predict(split).row_logits())


def key_of(pipe: Pipeline) -> str:
    """A hash of everything that decides a vector beside its text: weights, config, tokenizer, options, pooling and the other settings."""
    config: Mapping[str, Any] = pipe.model.config.to_dict()
    meant = {name: value for name, value in config.items() if name not in OF_NO_MEANING}
    described = [type(pipe.model).__name__, meant, fingerprint(pipe.tokenizer, pipe.options), settings_of(pipe.task)]
    digest = blake2b(json.dumps(described, sort_keys=True, default=str).encode(), digest_size=20)
    state: Mapping[str, Any] = pipe.model.state_dict()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        wide = tensor.float() if tensor.is_floating_point() else tensor  # numpy knows no bfloat16
        digest.update(np.ascontiguousarray(wide.cpu().numpy()).data)
    return digest.hexdigest()


def cached(folder: Path, split: "Split", make: "Callable[[Split], FloatArray]") -> FloatArray:
    """The vectors of all rows: those of known texts from the folder, the others made and kept there. Raises StorageError."""
    texts = [text for start, stop in split.chunks() for text in split.columns(start, stop)["text"]]
    keys = [text_key(text, row) for row, text in enumerate(texts)]
    known, vectors = read_vectors(folder)
    first: Known = {}
    for row, key in enumerate(keys):
        if key not in known:
            first.setdefault(key, row)
    if first:
        made = make(split.select(np.array(list(first.values()), dtype=np.int64)))  # a text that stands twice is read once
        vectors = made if not known else np.concatenate([vectors, made])
        known = {**known, **{key: len(known) + number for number, key in enumerate(first)}}
        keep_vectors(folder, known, vectors)
    if not keys:
        return make(split)
    return np.ascontiguousarray(vectors[[known[key] for key in keys]])


def text_key(text: object, row: int) -> bytes:
    """A hash of a text; of what is none, one of its own row, so that the tokenizer gets to say what is wrong with it."""
    told = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else f"{row} {text!r}".encode("utf-8", "replace")
    return blake2b(told, digest_size=KEY_BYTES, person=b"text" if isinstance(text, str) else b"none").digest()


def read_vectors(folder: Path) -> tuple[Known, FloatArray]:
    """What is kept in a folder; nothing where it is not whole: a cache is made again."""
    nothing: FloatArray = np.zeros((0, 0), dtype=np.float32)
    try:
        keys = np.load(folder / KEYS, allow_pickle=False)  # (texts, 16) uint8
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return {}, nothing
    whole = keys.dtype == np.uint8 and keys.shape == (len(vectors), KEY_BYTES) and vectors.dtype == np.float32 and vectors.ndim == 2
    known = {key.tobytes(): place for place, key in enumerate(keys)} if whole else {}
    return (known, vectors) if len(known) == len(vectors) else ({}, nothing)


def keep_vectors(folder: Path, known: Known, vectors: FloatArray) -> None:
    """Write keys and vectors into a folder, whole or not at all; of two writers the last one's stay. Raises StorageError."""
    keys = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(len(known), KEY_BYTES)
    with atomic_folder(folder) as fresh:
        write_npy(fresh / KEYS, keys)
        write_npy(fresh / VECTORS, vectors)


def map_2d(vectors: npt.ArrayLike, method: Literal["pca", "umap"] = "pca", *, seed: int = 0) -> FloatArray:
    """A map of vectors (rows, hidden) in two dimensions: (rows, 2) float32, by PCA, or by UMAP where umap-learn is installed.

    Raises DataError for vectors that are no finite numbers or fewer than three rows, SettingError for another method,
    MissingPackageError.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.dtype.kind not in "fiu" or min(given.shape) < 2 or len(given) < 3:
        cure = "Give three rows or more of two numbers or more."
        raise DataError(f"expected vectors (rows, hidden), came {given.dtype} of shape {given.shape}", place="vectors", cure=cure)
    if not np.isfinite(given).all():
        row = int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0])
        raise DataError("expected finite numbers", row=row, cure="Look for nan in the weights or the vectors.")
    if method == "pca":
        from sklearn.decomposition import PCA

        mapped = PCA(n_components=2, random_state=seed).fit_transform(given.astype(np.float64))
    elif method == "umap":
        umap: Any = need("umap", install="pip install umap-learn", why="map_2d(method='umap')")
        mapped = umap.UMAP(n_components=2, random_state=seed).fit_transform(given)
    else:
        raise SettingError(f"there is no map {method!r}", place="method", cure="Use 'pca' or 'umap'.")
    return np.asarray(mapped, dtype=np.float32)
