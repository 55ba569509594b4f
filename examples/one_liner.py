"""The first chapter of the transformers course: a task in one line.

python examples/one_liner.py reviews.csv my_sentiment
"""

import sys

import pellucid as pl


def main(file: str, folder: str) -> None:
    """A model of one's own stands in for the Hub's, so that this runs without the network."""
    rows = pl.read(file, text="text", label="label")
    pl.save(pl.train(rows, "text-classification", "minilm", options=pl.TrainOptions(epochs=1)).pipeline, folder)

    classifier = pl.pipeline("sentiment-analysis", folder)
    print(classifier("I've been waiting for a HuggingFace course my whole life."))
    print(classifier(["I've been waiting for this!", "I hate this so much!"], top_k=None))
    pl.show(classifier.pipe.trace("I hate this so much!"))  # what the one line did

    extractor = pl.pipeline("feature-extraction", "minilm")
    features = extractor("This is a simple test.")
    print(len(features), len(features[0]), len(features[0][0]))  # 1, tokens, numbers a token


if __name__ == "__main__":
    main(*sys.argv[1:3])
