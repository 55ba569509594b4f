"""Find names in texts: words with tags in, spans with exact characters out.

python examples/token_classification.py my_model
"""

import sys

import pellucid as pl

TEMPLATES = ("{person} lives in {place} .", "In {place} , {person} met {other} .", "{place} is far from here .", "Nobody called {person} .")
PERSONS = ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Marie Curie", "Emmy Noether", "Niels Bohr")
PLACES = ("Berlin", "New York", "Paris", "Rome", "London", "San Francisco")


def tagged() -> list[dict[str, list[str]]]:
    """Sentences as lists of words with a tag each: B- begins a name, I- goes on with it, O is outside."""
    rows = []
    for number, person in enumerate(PERSONS):
        for template in TEMPLATES:
            names = {"{person}": person, "{other}": PERSONS[number - 1], "{place}": PLACES[number]}
            words: list[str] = []
            tags: list[str] = []
            for part in template.split():
                label = "place" if part == "{place}" else "person"
                for place, word in enumerate(names.get(part, part).split()):
                    words.append(word)
                    tags.append(("I-" if place else "B-") + label if part in names else "O")
            rows.append({"words": words, "tags": tags})
    return rows


def main(folder: str) -> None:
    """Every step on its own line."""
    rows = pl.read(tagged(), text="words", label="tags")
    pl.show(rows)

    pipe = pl.Pipeline.new("token-classification", "minilm", rows)
    learn = pl.learner(pipe, rows, options=pl.LearnerOptions(lr=1e-3, loaders=pl.LoaderOptions(bs=4)))
    learn.fit_one_cycle(4)  # F1 and precision of whole names after each epoch
    learn.show_results(max_n=4)

    pl.show(pl.evaluate(pipe, rows.valid, train=rows.train))
    pl.save(pipe, folder)
    for prediction in pl.load(folder)(["Alan Turing lives in Paris.", "Has Marie Curie been to New York?"]):
        for span in prediction.answer:
            print(f"{span.start}:{span.end} {span} ({span.score:.2f})")
    pl.show(pipe.trace("Alan Turing lives in Paris."))


if __name__ == "__main__":
    main(*sys.argv[1:2])
