"""PipelineFeatures: the same vectors as the pipeline, inside scikit-learn's Pipeline, clone and searches, kept on disk; maps in 2-D."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import pellucid as pl
from conftest import SENTENCES
from pellucid import features
from pellucid.features import PipelineFeatures, key_of, map_2d, read_vectors
from pellucid.pipelines import Pipeline
from pellucid.tasks.embeddings import FeatureExtraction

TEXTS = [f"{text} {number}" for number in range(3) for text in SENTENCES]
LABELS = np.array([number % 2 for number in range(len(TEXTS))])


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path]) -> str:
    return str(tiny_checkpoints["bert"])


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts went through the model, one entry a call."""
    counts: list[int] = []
    make = features.vectors_of

    def counted(pipe: Pipeline, split: Any) -> Any:
        counts.append(len(split))
        return make(pipe, split)

    monkeypatch.setattr(features, "vectors_of", counted)
    return counts


def test_vectors_are_those_of_the_task(folder: str) -> None:
    expected = Pipeline.new("feature-extraction", folder).predict(TEXTS).answers()
    np.testing.assert_array_equal(PipelineFeatures(folder).transform(TEXTS), np.array(expected, dtype=np.float32))


@pytest.mark.parametrize(
    "given",
    [
        TEXTS[:4],
        tuple(TEXTS[:4]),
        np.array(TEXTS[:4]),
        np.array(TEXTS[:4], dtype=object)[:, None],
        pd.Series(TEXTS[:4], index=[9, 8, 7, 6]),
        pd.DataFrame({"review": TEXTS[:4]}),
    ],
    ids=["list", "tuple", "array", "column", "series", "frame"],
)
def test_texts_come_in_many_shapes(given: Any, folder: str) -> None:
    step = PipelineFeatures(folder)
    np.testing.assert_allclose(step.transform(given), step.transform(TEXTS[:4]), atol=1e-6)


def test_settings_reach_the_task(folder: str) -> None:
    step = PipelineFeatures(folder, pooling="cls", normalize=False, prompt="film: ", layer=1)
    assert step.pipeline().task == FeatureExtraction("cls", False, "film: ", 1)
    said = Pipeline.new(FeatureExtraction(pooling="max", prompt="film: "), folder)
    assert PipelineFeatures(said).pipeline().task == said.task, "what is not given stays as the pipeline says"
    assert PipelineFeatures(said, prompt="").pipeline().task.prompt == ""


def test_the_body_of_any_pipeline_serves(folder: str, tmp_path: Path) -> None:
    rows = pl.read([{"text": text, "label": str(place % 2)} for place, text in enumerate(TEXTS)], text="text", label="label")
    classifier = Pipeline.new("text-classification", folder, rows)
    expected = classifier.features(TEXTS)
    np.testing.assert_allclose(PipelineFeatures(classifier, normalize=False).transform(TEXTS), expected, atol=1e-6)
    saved = pl.save(classifier, tmp_path / "saved")
    np.testing.assert_allclose(PipelineFeatures(saved, normalize=False).transform(TEXTS), expected, atol=1e-6)


def test_inside_pipeline_and_cross_validation(folder: str) -> None:
    model = make_pipeline(PipelineFeatures(folder), LogisticRegression())
    scores = cross_val_score(model, TEXTS, LABELS, cv=3)
    assert scores.shape == (3,) and np.isfinite(scores).all()
    assert model.fit(TEXTS, LABELS).predict(TEXTS[:5]).shape == (5,)


@pytest.mark.parametrize("held", [False, True])
def test_a_search_shares_the_model(held: bool, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[object] = []
    monkeypatch.setattr(features, "opened", lambda name, real=features.opened: opened.append(name) or real(name))
    pipe = Pipeline.new("feature-extraction", folder) if held else folder
    model = make_pipeline(PipelineFeatures(pipe, cache=tmp_path), LogisticRegression())
    grid = {"pipelinefeatures__pooling": ["mean", "cls"], "logisticregression__C": [0.1, 10.0]}
    search = GridSearchCV(model, grid, cv=2).fit(TEXTS, LABELS)
    assert set(search.best_params_) == set(grid)
    assert len(opened) == (0 if held else 1), "clones share what one of them has opened"
    if held:
        assert search.best_estimator_[0].pipe is pipe, "a model is not copied"


def test_clones_keep_parameters_and_output(folder: str) -> None:
    step = PipelineFeatures(folder, pooling="cls", cache="somewhere").set_output(transform="pandas")
    twin = clone(step)
    assert twin is not step and twin.get_params() == step.get_params()
    twin.set_params(cache=None)
    frame = twin.transform(TEXTS[:3])
    assert list(frame.columns[:2]) == ["pipelinefeatures0", "pipelinefeatures1"] and frame.shape == (3, 32)
    assert len(step.get_feature_names_out()) == 32


def test_beside_other_columns(folder: str) -> None:
    frame = pd.DataFrame({"text": TEXTS, "stars": np.arange(len(TEXTS))})
    both = ColumnTransformer([("words", PipelineFeatures(folder), "text"), ("rest", "passthrough", ["stars"])])
    assert both.fit_transform(frame).shape == (len(TEXTS), 33)


def test_a_pipeline_is_not_pickled(folder: str) -> None:
    with pytest.raises(pl.PellucidError, match=r"not pickled.*pl\.save"):
        pickle.dumps(PipelineFeatures(Pipeline.new("feature-extraction", folder)))
    step = PipelineFeatures(folder)
    expected = step.transform(TEXTS[:2])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(step)).transform(TEXTS[:2]), expected)  # the model does not travel


# --- the cache ---------------------------------------------------------------------------------------------------------


def test_a_text_is_read_once(folder: str, tmp_path: Path, forwards: list[int]) -> None:
    step = PipelineFeatures(folder, cache=tmp_path)
    first = step.transform(TEXTS)
    np.testing.assert_array_equal(step.transform(TEXTS), first)
    assert forwards == [len(TEXTS)]
    np.testing.assert_array_equal(step.transform(TEXTS[::-1][:7]), first[::-1][:7])
    mixed = step.transform([TEXTS[3], "new", "new", TEXTS[0]])
    assert forwards == [len(TEXTS), 1], "of new texts, each is read once"
    np.testing.assert_array_equal(mixed[[0, 3]], first[[3, 0]])
    np.testing.assert_array_equal(mixed[1], mixed[2])
    np.testing.assert_array_equal(PipelineFeatures(folder, cache=tmp_path).transform([*TEXTS, "new"])[: len(TEXTS)], first)
    assert len(forwards) == 2


def test_cached_and_fresh_vectors_agree(folder: str, tmp_path: Path) -> None:
    fresh = PipelineFeatures(folder).transform(TEXTS)
    step = PipelineFeatures(folder, cache=tmp_path)
    step.transform(TEXTS[::3])
    np.testing.assert_allclose(step.transform(TEXTS), fresh, atol=1e-6)


def test_other_settings_and_other_weights_have_vectors_of_their_own(folder: str, tmp_path: Path, forwards: list[int]) -> None:
    pipe = Pipeline.new("feature-extraction", folder)
    key = key_of(pipe)
    steps = [PipelineFeatures(pipe, cache=tmp_path), PipelineFeatures(pipe, cache=tmp_path, pooling="cls")]
    steps += [PipelineFeatures(pipe, cache=tmp_path, prompt="a "), PipelineFeatures(pipe, cache=tmp_path, normalize=False)]
    found = [step.transform(TEXTS[:3]) for step in steps]
    assert forwards == [3, 3, 3, 3] and not np.allclose(found[0], found[1])
    pipe.model.encoder.layer[0].output.dense.weight.data *= 3
    assert key_of(pipe) != key
    assert not np.allclose(steps[0].transform(TEXTS[:3]), found[0]), "weights that were trained on are other weights"


@pytest.mark.parametrize("broken", ["keys.npy", "vectors.npy"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array"])
def test_a_broken_cache_is_made_again(broken: str, content: bytes, folder: str, tmp_path: Path) -> None:
    step = PipelineFeatures(folder, cache=tmp_path)
    first = step.transform(TEXTS[:3])
    next(tmp_path.glob(f"vectors-*/{broken}")).write_bytes(content)
    np.testing.assert_array_equal(step.transform(TEXTS[:3]), first)


def test_a_pickle_in_the_cache_is_not_opened(folder: str, tmp_path: Path) -> None:
    PipelineFeatures(folder, cache=tmp_path).transform(TEXTS[:3])
    place = next(tmp_path.glob("vectors-*"))
    np.save(place / "vectors.npy", np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    assert read_vectors(place)[0] == {}


def test_no_texts(folder: str, tmp_path: Path) -> None:
    assert len(PipelineFeatures(folder).transform([])) == 0
    assert len(PipelineFeatures(folder, cache=tmp_path).transform([])) == 0


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("wrong", [None, 3.5, b"bytes", float("nan")])
def test_what_is_no_text_is_named(cache: bool, wrong: Any, folder: str, tmp_path: Path) -> None:
    step = PipelineFeatures(folder, cache=tmp_path if cache else None)
    with pytest.raises(pl.PellucidError, match="row 2"):
        step.transform([TEXTS[0], TEXTS[1], wrong, TEXTS[3]])


# --- maps --------------------------------------------------------------------------------------------------------------


def test_a_map_has_two_dimensions_and_keeps_neighbours() -> None:
    random = np.random.default_rng(0)
    far = np.repeat([[0.0], [50.0]], 20, axis=0) + random.normal(size=(40, 16))
    mapped = map_2d(far)
    assert mapped.shape == (40, 2) and mapped.dtype == np.float32
    assert abs(mapped[:20, 0].mean() - mapped[20:, 0].mean()) > 20
    np.testing.assert_array_equal(map_2d(far), mapped)


@pytest.mark.parametrize("wrong", [np.zeros((2, 5)), np.zeros(5), np.array([["a", "b"]] * 4), np.full((4, 4), np.nan)])
def test_what_cannot_be_mapped_is_told(wrong: np.ndarray) -> None:
    with pytest.raises(pl.PellucidError, match="expected"):
        map_2d(wrong)


def test_umap_where_it_is_installed() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8))
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(pl.PellucidError, match="pip install umap-learn"):
            map_2d(vectors, "umap")
    else:
        assert map_2d(vectors, "umap").shape == (30, 2)
    with pytest.raises(pl.PellucidError, match="no map 'tsne'"):
        map_2d(vectors, "tsne")  # type: ignore[arg-type]
