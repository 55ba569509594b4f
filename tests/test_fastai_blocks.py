"""Loaders: fastai's verbs over one table of tokens, the same by both roads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import DataError, LabelError, SettingError
from pellucid.tokens import TokenOptions
from pellucid.training.fastai_blocks import LoaderOptions, TokenLoader, dataloaders

SOURCE = Path(pl.__file__).parents[1]


def frame(copies: int = 3) -> pd.DataFrame:
    """Reviews of many lengths, no two alike; every fourth is for validation."""
    texts = [f"{text} {' and so on' * (place % 5)} {copy}" for copy in range(copies) for place, text in enumerate(SENTENCES)]
    labels = ["positive" if place % 2 else "negative" for place in range(len(texts))]
    return pd.DataFrame({"text": texts, "label": labels, "is_valid": [place % 4 == 3 or place % 8 == 0 for place in range(len(texts))]})


@pytest.fixture(scope="module")
def rows():
    return pl.read(frame(), text="text", label="label", split="is_valid")


@pytest.fixture(scope="module")
def pipe(rows, tiny_checkpoints):
    return pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)


def block(pipe, options=LoaderOptions()):
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import ColReader, ColSplitter

    text_block = pl.TextBlock(pipe, options)
    return DataBlock(blocks=(text_block, CategoryBlock), get_x=ColReader("text"), get_y=ColReader("label"), splitter=ColSplitter())


def by_text(loader):
    """ids without padding → label, for every row that the loader gives."""
    found = {}
    for inputs, labels in loader:
        for ids, mask, label in zip(inputs["input_ids"], inputs["attention_mask"], labels, strict=True):
            found[tuple(ids[mask.bool()].tolist())] = int(label)
    return found


def test_a_batch_is_what_the_tokenizer_makes_of_the_texts(pipe, rows):
    dls = dataloaders(pipe, rows, options=LoaderOptions(bs=4))
    inputs, labels = dls.one_batch()
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (4, inputs["input_ids"].shape[1])
    assert labels.shape == (4,) and labels.dtype == torch.int64
    wanted = {
        tuple(pipe.tokenizer(example.fields["text"], truncation=True)["input_ids"]): pipe.task.labels.index(example.target)
        for example in (rows.train[position] for position in range(len(rows.train)))
    }
    assert by_text(dls.train) == wanted
    assert pipe.model(**inputs).logits.shape == (4, 2)


def test_datablock_and_dataloaders_give_the_same_tokens(pipe, rows):
    ours = dataloaders(pipe, rows, options=LoaderOptions(bs=4))
    theirs = block(pipe).dataloaders(frame(), bs=4, drop_last=False)
    for one, other in zip(ours, theirs, strict=True):
        found = by_text(one)
        assert found == by_text(other) and len(found) == len(one.dataset)
    # the plans are the same too: the same rows meet in the same batches
    for one, other in zip(ours.train, theirs.train, strict=True):
        assert one[0].keys() == other[0].keys() and torch.equal(one[0]["input_ids"], other[0]["input_ids"])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("options", "count", "tokens"),
    [
        (LoaderOptions(bs=4), 4, None),
        (LoaderOptions(), 16, None),
        (LoaderOptions(bs="auto"), 32, 4096),
        (LoaderOptions(bs="auto", max_tokens=100), 32, 100),
    ],
)
def test_a_datablock_makes_batches_of_the_size_that_its_options_say(pipe, options, count, tokens):
    dls = block(pipe, options).dataloaders(frame(12))
    shapes = [batch[0]["input_ids"].shape for loader in dls for batch in loader]
    assert dls.train.bs == dls.valid.bs == count and dls.train.options.max_tokens == tokens
    assert max(size for size, _ in shapes) <= count and (tokens is not None or shapes[0][0] == count)
    assert tokens is None or all(size * width <= tokens for size, width in shapes)
    given = block(pipe, options).dataloaders(frame(12), bs=8)
    assert given.train.bs == given.valid.bs == 8, "what fastai's own call says is done"


def test_padding_to_a_fixed_length(rows, tiny_checkpoints):
    tokens = TokenOptions(padding="max_length", max_length=48)
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows, tokens=tokens)
    for dls in (dataloaders(pipe, rows, options=LoaderOptions(bs=4)), block(pipe).dataloaders(frame(), bs=4)):
        inputs, labels = dls.one_batch()
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (4, 48) and labels.shape == (4,)


def test_show_batch_shows_what_the_model_reads(pipe, rows, capsys):
    for dls in (dataloaders(pipe, rows, options=LoaderOptions(bs=4)), block(pipe).dataloaders(frame(), bs=4)):
        dls.show_batch(max_n=3)
        shown = capsys.readouterr().out
        assert shown.count("[CLS]") == 3 and "[PAD]" not in shown and "label" in shown
        assert "positive" in shown or "negative" in shown
        inputs, labels, samples = dls.train.show_batch(show=False, max_n=2)
        assert len(samples) == 2 and samples[0][1] in pipe.task.labels and len(inputs["input_ids"]) == 2 and len(labels) == 4


def test_datablock_summary_runs(pipe, capsys):
    block(pipe).summary(frame())
    assert "Collating items in a batch" in capsys.readouterr().out


def test_training_order_is_new_each_epoch_and_follows_from_the_seed(pipe, rows):
    def epochs(seed, peeks):
        loader = dataloaders(pipe, rows, options=LoaderOptions(bs=4, seed=seed)).train
        found = []
        for _ in range(2):
            for _ in range(peeks):
                loader.one_batch()
            found.append([labels.tolist() + inputs["input_ids"][:, 1].tolist() for inputs, labels in loader])
        return found

    first, second = epochs(1, 0)
    assert first != second and epochs(1, 0) == [first, second]
    assert epochs(1, 3) == [first, second], "looking at batches must not change what training sees"
    assert epochs(2, 0)[0] != first


def test_one_batch_differs_from_call_to_call(pipe, rows):
    loader = dataloaders(pipe, rows, options=LoaderOptions(bs=4)).train
    assert len({loader.one_batch()[0]["input_ids"].sum().item() for _ in range(6)}) > 1


def test_validation_is_sorted_and_says_where_each_row_went(pipe, rows):
    loader = dataloaders(pipe, rows, options=LoaderOptions(bs=4)).valid
    order = np.asarray(loader.get_idxs())
    assert sorted(order.tolist()) == list(range(len(rows.valid)))
    lengths = loader.table.lengths[order]
    assert (np.diff(lengths) <= 0).all()
    flat = torch.cat([labels for _, labels in loader]).numpy()
    assert (flat == loader.table.labels[order]).all()


def test_new_keeps_the_settings_and_the_tokens(pipe, rows):
    loader = dataloaders(pipe, rows, options=LoaderOptions(bs=4, max_tokens=100, seed=7)).train
    other = loader.new(shuffle=False)
    assert isinstance(other, TokenLoader) and other.table is loader.table and other.options == loader.options
    assert other.bs == 4 and not other.shuffle and other.pipe is pipe and other.device == loader.device
    fresh = loader.new(["one text", "another, longer text"])
    inputs = next(iter(fresh))[0]
    assert len(fresh.table) == 2 and fresh.table.labels is None and len(inputs["input_ids"]) == 2


def test_a_fixed_width_counts_in_the_budget(rows, tiny_checkpoints):
    tokens = TokenOptions(padding="max_length", max_length=40)
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows, tokens=tokens)
    for loader in dataloaders(pipe, rows, options=LoaderOptions(bs=8, max_tokens=90)):
        assert {inputs["input_ids"].shape for inputs, _ in loader} <= {(1, 40), (2, 40)}


@pytest.mark.parametrize("bucket", [True, False])
def test_a_token_budget_bounds_every_batch(pipe, rows, bucket):
    dls = dataloaders(pipe, rows, options=LoaderOptions(bs=8, max_tokens=90, bucket=bucket))
    for loader in dls:
        shapes = [inputs["input_ids"].shape for inputs, _ in loader]
        assert all(count * width <= 90 or count == 1 for count, width in shapes) and sum(count for count, _ in shapes) == len(loader.table)


def test_length_and_batches_agree(pipe, rows):
    for options in (LoaderOptions(bs=5), LoaderOptions(bs=5, max_tokens=90), LoaderOptions(bs=5, bucket=False)):
        for loader in dataloaders(pipe, rows, options=options):
            assert len(loader) == len(list(loader))
    dropping = dataloaders(pipe, rows, options=LoaderOptions(bs=5)).train.new(drop_last=True)
    assert {len(labels) for _, labels in dropping} == {5} and len(dropping) == len(rows.train) // 5


def test_pairs_of_texts_through_a_datablock(tiny_checkpoints):
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import ColReader, ColSplitter

    pairs = frame(1).assign(other=list(SENTENCES))
    rows = pl.read(pairs, text="text", text_pair="other", label="label", split="is_valid")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    blocks = (pl.TextBlock(pipe), CategoryBlock)
    getters = {"get_y": ColReader("label"), "splitter": ColSplitter()}
    dls = DataBlock(blocks=blocks, get_x=ColReader(["text", "other"]), **getters).dataloaders(pairs, bs=2, drop_last=False)
    assert by_text(dls.train) == by_text(dataloaders(pipe, rows).train)
    two = DataBlock(blocks=(pl.TextBlock(pipe), *blocks), get_x=[ColReader("text"), ColReader("other")], **getters)
    assert by_text(two.dataloaders(pairs, bs=2, drop_last=False).train) == by_text(dls.train)
    alone = DataBlock(blocks=blocks, get_x=ColReader("text"), **getters)
    with pytest.raises(DataError, match="expected 2 texts"):
        alone.dataloaders(pairs, bs=2)


def test_errors_say_what_to_do(pipe, rows):
    with pytest.raises(SettingError, match=r"num_workers.*Leave it out"):
        block(pipe).dataloaders(frame(), bs=4, num_workers=2)
    with pytest.raises(SettingError, match="bs is 0"):
        LoaderOptions(bs=0)
    with pytest.raises(SettingError, match="bs is None"):
        block(pipe).dataloaders(frame(), bs=None)
    with pytest.raises(DataError, match="Pass a smaller bs"):
        block(pipe).dataloaders(frame(), bs=500).one_batch()
    other = frame().assign(label=lambda table: table["label"].str.replace("negative", "zero"))
    with pytest.raises(LabelError, match=r"CategoryBlock\(vocab=\['negative', 'positive'\], sort=False\)"):
        block(pipe).dataloaders(other, bs=4)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["fastai first", "pellucid first"])
def test_both_import_orders_with_fastai_text_all(order, tiny_checkpoints):
    stars, ours = "from fastai.text.all import *", "import pellucid as pl; pl.TextBlock, pl.learner, pl.Pipeline"
    lines = [stars, ours] if order == "fastai first" else [ours, stars]
    script = "\n".join(
        [
            "from pellucid.process import hide_broken_torchvision; hide_broken_torchvision()",
            *lines,
            "rows = [{'text': f'text {n}', 'label': 'ab'[n % 2], 'split': 'valid' if n > 7 else 'train'} for n in range(12)]",
            "rows = pl.read(rows, text='text', label='label', split='split')",
            f"pipe = pl.Pipeline.new('text-classification', {str(tiny_checkpoints['bert'])!r}, rows)",
            "learn = pl.learner(pipe, rows, metrics=[accuracy, F1Score()], cbs=[GradientClip, ShowGraphCallback][:1])",
            "with learn.no_bar(): learn.fit_one_cycle(1)",
            "interp = ClassificationInterpretation.from_learner(learn); interp.plot_top_losses(2)",
            "assert isinstance(learn, Learner) and pl.TextBlock is not TextBlock and pl.Pipeline is not Pipeline",
        ]
    )
    environment = {
        "PYTHONPATH": str(SOURCE),
        "PATH": "",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "HOME": "/tmp",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "top losses" in done.stdout


def loader_over(checkpoint, texts):
    """A pipeline and its loaders over these texts, twice: to train and to validate on."""
    data = [{"text": text, "label": "ab"[place % 2], "split": split} for split in ("train", "valid") for place, text in enumerate(texts)]
    rows = pl.read(data, text="text", label="label", split="split")
    pipe = pl.Pipeline.new("text-classification", checkpoint, rows)
    return pipe, dataloaders(pipe, rows, options=LoaderOptions(bs=2))


def test_show_batch_shows_escapes_and_markup_harmlessly(tiny_checkpoints, capsys):
    """A byte-level tokenizer gives every character back, also those that would steer the terminal or the page."""
    _, dls = loader_over(tiny_checkpoints["gpt2"], ["\x1b[31mred\x1b[0m \x07", "<script>alert(1)</script>"])
    dls.show_batch()
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "red" in shown
    from pellucid.view import Table

    samples = dls.train.show_batch(show=False)[2]
    assert "<script>" not in pl.to_html(Table("a batch", ("text", "label"), tuple(samples)))


@pytest.mark.parametrize(
    "texts",
    [["one"] * 3, ["a", "a longer one", "by far the longest"], ["{{7*7}} %s {0}", "%(x)s ${HOME}"]],
    ids=lambda v: v[0][:5],
)
def test_batches_of_one_of_equal_and_of_different_lengths(tiny_checkpoints, texts):
    pipe, dls = loader_over(tiny_checkpoints["bert"], texts)
    for loader in (*dls, dls.train.new(bs=1), dls.valid.new(bs=1)):
        seen = [
            ids[mask.bool()].tolist()
            for inputs, _ in loader
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        assert sorted(seen) == sorted(pipe.tokenizer(text)["input_ids"] for text in texts)
