"""Texts as vectors: how alike two texts are, a head of scikit-learn on top, and a map of the vectors.

python examples/features.py reviews.csv vectors
"""

import sys

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import pellucid as pl
from pellucid.features import map_2d
from pellucid.tasks.embeddings import FeatureExtraction


def main(file: str, cache: str) -> None:
    """Every step on its own line."""
    rows = pl.read(file, text="text", label="label", options=pl.ReadOptions(valid_fraction=0.0)).train

    pipe = pl.Pipeline.new("feature-extraction", "minilm")
    pl.show(pipe.trace(rows[0]))  # text, tokens, batch, vector

    alike = pl.Pipeline.new(FeatureExtraction(compare=True), "minilm")
    pl.show(alike.predict([("A wonderful film.", "I loved this movie."), ("A wonderful film.", "The train is late.")])[:])

    texts = [example.fields["text"] for example in rows]
    labels = [str(example.target) for example in rows]
    model = make_pipeline(pl.PipelineFeatures("minilm", cache=cache), LogisticRegression(max_iter=1000))
    print("accuracy in five folds:", cross_val_score(model, texts, labels, cv=5))  # each text goes through the model once

    vectors = pl.PipelineFeatures("minilm", cache=cache).transform(texts)  # from the folder
    print("a map of", vectors.shape, "begins with", map_2d(vectors)[:3].round(3).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:3])
