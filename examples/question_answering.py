"""Answer questions from a text: read, train, score, save, load, predict.

python examples/question_answering.py my_model
"""

import sys

import pellucid as pl

PLACES = {
    "Lisbon": ("Portugal", "the Tagus", "545,000"),
    "Vienna": ("Austria", "the Danube", "2,000,000"),
    "Prague": ("Czechia", "the Vltava", "1,300,000"),
    "Seville": ("Spain", "the Guadalquivir", "680,000"),
    "Cologne": ("Germany", "the Rhine", "1,080,000"),
    "Lyon": ("France", "the Rhône", "520,000"),
}


def questions() -> list[dict[str, object]]:
    """Four questions about each city; the last of them has no answer in its context."""
    rows: list[dict[str, object]] = []
    for city, (country, river, people) in PLACES.items():
        context = f"{city} is a city in {country}. It lies on {river} and has about {people} inhabitants."
        asked = {f"In which country is {city}?": country, f"On which river does {city} lie?": river, f"How many live in {city}?": people}
        for question, answer in asked.items():
            answers = [{"text": answer, "answer_start": context.index(answer)}]
            rows.append({"question": question, "context": context, "answers": answers})
        rows.append({"question": f"Who is the mayor of {city}?", "context": context, "answers": []})
    return rows


def main(folder: str) -> None:
    """Every step on its own line."""
    rows = pl.read(questions(), text="question", text_pair="context", label="answers")
    pl.show(rows)

    trained = pl.train(rows, "question-answering", "minilm", options=pl.TrainOptions(epochs=4, batch_size=4, learning_rate=3e-4))
    pl.show(trained)  # questions without an answer were found, and a threshold was settled for them
    pl.show(trained.pipeline.trace(rows.valid[0]))  # question and context, tokens, scores of both ends, answer
    pl.show(pl.evaluate(trained.pipeline, rows.valid, train=rows.train))

    pl.save(trained.pipeline, folder)
    context = "Porto is a city in Portugal. It lies on the Douro and has about 230,000 inhabitants."
    for prediction in pl.load(folder)([("On which river does Porto lie?", context), ("Who built it?", context)]):
        print(prediction.answer or "(no answer)", *prediction.spans, sep=" | ")


if __name__ == "__main__":
    main(*sys.argv[1:2])
