"""fastai's AWD_LSTM in the three stages of ULMFiT, from random weights, on texts that another tokenizer cuts.

Takes a tokenizer, sizes, and seconds for each stage. Gives which of the tested sentences it answers right, and what each stage reached.
A stage ends when its seconds are over; the cycle of its learning rate is planned so that it ends there too.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, ColSplitter
from fastai.metrics import accuracy
from fastai.text.data import TextBlock
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastcore.foundation import L
from fasttransform import Transform

UNKNOWN, PADDING = "xxunk", "xxpad"  # where fastai's models look for them: 0 and 1


class Pieces(Transform):
    """Text to pieces, as another tokenizer cuts it; a special token stands at the beginning of each text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encodes(self, text: str):
        """The pieces of one text; what is returned has no annotation, which fastai would read as a type to turn it into."""
        return L(self.tokenizer.cls_token, *self.tokenizer.tokenize(text))


class Clock(Callback):
    """Ends a fit when its seconds are over, and lets its cycle of rates end then, too; looking at validation rows is not counted."""

    order = 50  # before the ParamScheduler, which reads `pct_train`

    def __init__(self, seconds: float) -> None:
        self.seconds, self.used, self.steps = seconds, 0.0, 0

    def before_batch(self) -> None:
        """A step begins: as much of the cycle is over as of the seconds."""
        self.started = perf_counter()
        if self.training:
            self.learn.pct_train = min(1.0, self.used / self.seconds)

    def after_batch(self) -> None:
        """A step ends, and perhaps the fit."""
        if not self.training:
            return
        self.used += perf_counter() - self.started
        self.steps += 1
        if self.used >= self.seconds:
            raise CancelFitException


class Lstm:
    """One AWD_LSTM, from nothing to a classifier."""

    def __init__(self, tokenizer: Any, hidden: int, layers: int, seed: int) -> None:
        self.pieces, self.seed = Pieces(tokenizer), seed
        self.vocabulary = [UNKNOWN, PADDING, *tokenizer.get_vocab()]
        self.sizes = {"emb_sz": hidden // 2, "n_hid": hidden, "n_layers": layers}
        self.folder = Path(tempfile.mkdtemp(prefix="pellucid-lstm-"))
        self.said: dict[str, Any] = {}

    def three_stages(self, data: Any, seconds: Sequence[float], most_epochs: int) -> np.ndarray:
        """Pretrain, adapt, classify; which of the tested sentences are answered right."""
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002  # fastai's own loaders draw from it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = self.language(data, "articles", seconds[0], most_epochs, None)
            second = self.language(data, "reviews", seconds[1], most_epochs, first)
            return self.classify(data, seconds[2], most_epochs, second)

    def language(self, data: Any, name: str, seconds: float, most_epochs: int, start: Path | None) -> Path:
        """Foresee the next piece of these texts; gives the file of the weights."""
        frame = frame_of(data.texts(name, "train"), data.texts(name, "valid"))
        block = DataBlock(
            blocks=TextBlock(self.pieces, vocab=self.vocabulary, is_lm=True, seq_len=72), get_x=ColReader("text"), splitter=ColSplitter()
        )
        dls = block.dataloaders(frame, bs=32, seq_len=72)
        learn = language_model_learner(
            dls, AWD_LSTM, {**awd_lstm_lm_config, **self.sizes}, drop_mult=0.3, pretrained=False, path=self.folder
        )
        if start is not None:
            learn.load(start.stem)
        self.train(learn, name, seconds, most_epochs, 5e-3)
        with learn.no_bar(), learn.no_logging():
            self.said[f"perplexity_{name}"] = float(np.exp(learn.validate()[0]))
        learn.save(name, with_opt=False)
        learn.save_encoder(f"{name}_encoder")
        return Path(f"{name}.pth")

    def classify(self, data: Any, seconds: float, most_epochs: int, start: Path) -> np.ndarray:
        """Learn the labels with the encoder of a language model."""
        frame = frame_of(data.texts("sentences", "train"), data.texts("sentences", "valid"))
        frame["label"] = data.labels("train") + data.labels("valid")
        blocks = (TextBlock(self.pieces, vocab=self.vocabulary, seq_len=72), CategoryBlock)
        block = DataBlock(blocks=blocks, get_x=ColReader("text"), get_y=ColReader("label"), splitter=ColSplitter())
        dls = block.dataloaders(frame, bs=32)
        config = {**awd_lstm_clas_config, **self.sizes}
        learn = text_classifier_learner(dls, AWD_LSTM, config=config, drop_mult=0.3, metrics=accuracy, pretrained=False, path=self.folder)
        learn.load_encoder(f"{start.stem}_encoder")
        self.train(learn, "sentences", seconds, most_epochs, 5e-3)
        self.said["parameters"] = sum(parameter.numel() for parameter in learn.model.parameters())
        tested = dls.test_dl(pd.DataFrame({"text": data.texts("sentences", "test")}))
        with learn.no_bar(), learn.no_logging():
            scores, _ = learn.get_preds(dl=tested)  # in the order of the rows
        return np.array([dls.vocab[1][number] for number in scores.argmax(dim=1).tolist()]) == np.array(data.labels("test"))

    def train(self, learn: Any, name: str, seconds: float, most_epochs: int, rate: float) -> None:
        """One cycle that is over when the seconds are."""
        clock = Clock(seconds)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(most_epochs, rate, cbs=[clock])
        self.said |= {f"epochs_{name}": round(clock.steps / len(learn.dls.train), 2), f"seconds_{name}": clock.used}


def frame_of(train: list[str], valid: list[str]) -> pd.DataFrame:
    """Texts with the column that tells validation rows."""
    return pd.DataFrame({"text": train + valid, "is_valid": [False] * len(train) + [True] * len(valid)})
