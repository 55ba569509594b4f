"""The contract of a task as tests that anybody can run.

Takes a task, a checkpoint and a few labelled rows. Gives silence, or a ContractError that names the check and what broke.
Knows nothing of any one task.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.batch import IGNORED
from pellucid.data import Rows, Split
from pellucid.errors import PellucidError
from pellucid.pipelines import Pipeline
from pellucid.store import load, save
from pellucid.task import CLASSES, LABELLED_TOKENS, Task, settings_of, task_from
from pellucid.types import Answer, FloatArray, Output, Prediction, Span, Target, Want

TOLERANCE = 1e-5  # float32, the same sums in another order; relative for numbers above 1
FEWEST = 4  # rows


class ContractError(AssertionError):
    """A task that does not keep the contract."""


@dataclass(frozen=True)
class Subject:
    """What the checks look at: a pipeline with the task in it, its labelled rows, and a folder to write into."""

    pipe: Pipeline
    split: Split
    folder: Path


def expect(true: bool, what: str) -> None:
    """Raise ContractError unless `true`."""
    if not true:
        raise ContractError(what)


def closest(left: FloatArray, right: FloatArray) -> float:
    """The largest difference between two arrays of one shape; infinity for two shapes."""
    return float(np.abs(left - right).max(initial=0.0)) if left.shape == right.shape else float("inf")


def inputs_fit_the_model(subject: Subject) -> None:
    """`Batch.inputs` holds only named parameters of the model's forward."""
    table = subject.pipe.encode(subject.split)
    batch = subject.pipe.collate(table, np.arange(len(table)))
    odd = set(batch.inputs) - set(inspect.signature(subject.pipe.model.forward).parameters)
    expect(not odd, f"collate gave inputs that forward does not name: {sorted(odd)}")


def encode_leaves_its_input_alone(subject: Subject) -> None:
    """Encoding changes neither the texts, nor the targets, nor the tokenizer."""
    pipe, split = subject.pipe, subject.split
    columns, targets = split.columns(0, len(split)), split.targets(0, len(split)) if split.has_targets else None

    def seen() -> tuple[str, list[Target], str]:
        texts = json.dumps({name: list(texts) for name, texts in columns.items()})
        return texts, list(targets or ()), pipe.tokenizer.backend_tokenizer.to_str()

    before = seen()
    pipe.task.encode(pipe.tokenizer, columns, targets, pipe.options)
    after = seen()
    expect(before == after, "encode changed the texts, the targets or the tokenizer that it was given")


def row_alone_answers_as_in_a_batch(subject: Subject) -> None:
    """Padding changes no answer."""
    together = subject.pipe.predict(subject.split)
    for position in range(len(subject.split)):
        alone = subject.pipe.predict(subject.split.select([position]))
        difference = apart(alone[0], together[position])
        expect(difference <= TOLERANCE, f"row {position}: alone and in a padded batch the answers differ by {difference:.1e}")


def apart(left: Prediction, right: Prediction) -> float:
    """How far two predictions are apart in their scores, those of their spans, or their numbers; infinity for other answers."""
    numbers = [scores_apart(dict(left.scores), dict(right.scores)), spans_apart(left.spans, right.spans)]
    one, other = left.answer, right.answer
    if len(left.scores) <= 1:  # with several candidates that score alike, rounding may choose
        numbers.append(answers_apart(one, other))
    return max(numbers)


def answers_apart(left: object, right: object) -> float:
    """The largest difference between two answers: of their numbers, or of the scores of their spans; infinity for other answers."""
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        if all(isinstance(one, Span) for one in (*left, *right)):
            return spans_apart(left, right)
        return max((answers_apart(one, other) for one, other in zip(left, right, strict=True)), default=0.0)
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) / max(1.0, abs(left))
    return 0.0 if left == right else float("inf")


def spans_apart(left: Sequence[Span], right: Sequence[Span]) -> float:
    """The largest difference between the scores of the same spans; infinity for other spans."""
    if [span.place for span in left] != [span.place for span in right]:
        return float("inf")
    return max((abs((one.score or 0.0) - (other.score or 0.0)) for one, other in zip(left, right, strict=True)), default=0.0)


def scores_apart(left: "dict[str, float] | object", right: "dict[str, float] | object") -> float:
    """The largest difference between two sets of scores with the same candidates; infinity for other candidates."""
    if not isinstance(left, dict) or not isinstance(right, dict) or list(left) != list(right):
        return float("inf")
    return max((abs(left[name] - right[name]) / max(1.0, abs(left[name])) for name in left), default=0.0)


def order_does_not_matter(subject: Subject) -> None:
    """The rows backwards give the answers backwards."""
    backwards = subject.split.select(list(range(len(subject.split)))[::-1])
    forth, back = subject.pipe.predict(subject.split), subject.pipe.predict(backwards)
    for left, right in zip(list(forth)[::-1], back, strict=True):
        expect(apart(left, right) <= TOLERANCE, f"row {left.row} answers otherwise when the rows are turned round")


def oracle(labels: FloatArray, outputs: int) -> FloatArray:
    """Logits that say exactly what the labels say: class numbers, zeros and ones, or numbers.

    Where a token is not scored they say what they said of the one before: the further pieces of a word are no other word.
    """
    if np.issubdtype(labels.dtype, np.integer) and labels.ndim == 2:
        places = np.where(labels == IGNORED, 0, np.arange(labels.shape[1]))  # (batch, tokens)
        labels = np.take_along_axis(labels, np.maximum.accumulate(places, axis=1), axis=1)
    if np.issubdtype(labels.dtype, np.integer):
        return 40.0 * np.eye(outputs, dtype=np.float32)[np.maximum(labels, 0)]
    if labels.ndim == 1:
        return labels[:, None].astype(np.float32)
    return (80.0 * labels - 40.0).astype(np.float32)


def as_told(target: object) -> object:
    """A set of labels or spans whatever their order and scores, anything else as it is."""
    if not isinstance(target, tuple):
        return target
    return frozenset(one.place if isinstance(one, Span) else one for one in target)


def labels_survive(subject: Subject) -> None:
    """Targets that go in through `encode` come out of `decode` when the model is always right: classes, numbers, tags, spans."""
    pipe, split = subject.pipe, subject.split
    if pipe.task.kind not in (*CLASSES, *LABELLED_TOKENS):
        return  # texts and vectors have no logits that say them; a task of answers tests its own
    table = pipe.encode(split)
    if table.labels is None:
        return  # nothing is learned from rows
    batch = pipe.collate(table, np.arange(len(table)))
    outputs = pipe.run(batch).logits.shape[-1]
    logits = oracle(np.asarray(batch.labels), outputs)
    if logits.ndim == 3:
        mask = np.asarray(batch.inputs["attention_mask"]).astype(bool)
        logits = np.stack([np.concatenate([row[real], row[~real]]) for row, real in zip(logits, mask, strict=True)])
    lengths = batch.lengths if logits.ndim == 3 else None
    predictions = pipe.decode(Output(logits, lengths=lengths), batch, pipe.source(split))
    for prediction, target in zip(predictions, split.targets(0, len(split)), strict=True):
        same = as_told(prediction.answer) == as_told(target)
        if isinstance(prediction.answer, float):
            same = bool(np.isclose(float(str(target)), prediction.answer))
        expect(same, f"row {prediction.row}: {target!r} went in and {prediction.answer!r} came out")


def loss_is_one_a_row(subject: Subject) -> None:
    """The loss is finite, one number a row, and its gradient reaches the parameters."""
    import torch

    pipe = subject.pipe
    if not subject.split.has_targets and pipe.task.kind != "language":
        return  # nothing is learned from these rows
    table = pipe.task.to_learn(pipe.encode(subject.split))
    batch = pipe.task.drawn(pipe.collate(table, np.arange(len(table))), 0)
    output = pipe.task.run(pipe.model, batch)
    loss = pipe.task.loss(output.logits, torch.as_tensor(batch.labels, device=output.logits.device))
    expect(tuple(loss.shape) == (len(batch),), f"loss has the shape {tuple(loss.shape)}, expected ({len(batch)},)")
    expect(bool(torch.isfinite(loss).all()), "loss is not finite")
    short = pipe.task.loss(pipe.task.run(pipe.model, batch, Want(scored=True)).logits, torch.as_tensor(batch.labels, device=loss.device))
    apart = closest(loss.detach().cpu().numpy(), short.detach().cpu().numpy())
    expect(apart <= TOLERANCE * max(1.0, float(loss.detach().abs().max())), f"with Want(scored=True) the loss differs by {apart:.1e}")
    loss.mean().backward()
    reached = any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in pipe.model.parameters())
    pipe.model.zero_grad(set_to_none=True)
    expect(reached, "the loss does not depend on any parameter")


def provenance_sums_up(subject: Subject) -> None:
    """Every parameter has an origin, and the counts sum to all of them."""
    everything = sum(parameter.numel() for parameter in subject.pipe.model.parameters())
    counted = sum(subject.pipe.provenance.counts().values())
    expect(counted == everything, f"provenance counts {counted:,} parameters, the model has {everything:,}")


def settings_come_back(subject: Subject) -> None:
    """Settings survive JSON."""
    task = subject.pipe.task
    again = task_from(type(task), json.loads(json.dumps(settings_of(task))))
    expect(again == task, f"{task} became {again} on the way through JSON")


def saving_is_exact(subject: Subject) -> None:
    """Save and load give the same task, options, origins and logits to the bit."""
    folder = save(subject.pipe, subject.folder / "saved")
    again = load(folder)
    expect(again.task == subject.pipe.task, f"{subject.pipe.task} became {again.task}")
    expect(again.options == subject.pipe.options, f"{subject.pipe.options} became {again.options}")
    same_origins = again.provenance.parameters == subject.pipe.provenance.parameters
    expect(same_origins, "the origins of the parameters changed on the way to the disk and back")
    for left, right in zip(subject.pipe.predict(subject.split), again.predict(subject.split), strict=True):
        expect(left == right, f"row {left.row}: {left} before saving, {right} after loading")


def trace_answers_as_predict(subject: Subject) -> None:
    """Looking does not change the answer."""
    for position in range(min(3, len(subject.split))):
        one = subject.split.select([position])
        looked, plain = subject.pipe.trace(subject.split[position]).prediction, subject.pipe.predict(one)[0]
        expect(
            looked.answer == plain.answer or answers_apart(looked.answer, plain.answer) <= TOLERANCE,
            f"row {position}: {looked} is not {plain}",
        )
        expect(
            scores_apart(dict(looked.scores), dict(plain.scores)) <= TOLERANCE and spans_apart(looked.spans, plain.spans) <= TOLERANCE,
            f"row {position}: {looked} has not the scores of {plain}",
        )


def errors_name_the_row(subject: Subject) -> None:
    """A row without a target is refused by its number when targets are wanted."""
    split, task = subject.split, subject.pipe.task
    if not split.has_targets:
        return
    targets = split.targets(0, len(split))
    targets[1] = None
    try:
        task.encode(subject.pipe.tokenizer, split.columns(0, len(split)), targets, subject.pipe.options)
    except PellucidError as error:
        expect("row 1" in str(error), f"the error does not name row 1: {error}")
        expect(bool(error.cure), f"the error says nothing of what to do: {error}")
    else:
        raise ContractError("a row without a target was encoded without a word")


def perfect_answers_score_best(subject: Subject) -> None:
    """Predictions that are right score better than predictions that are shuffled."""
    pipe, split = subject.pipe, subject.split
    if not split.has_targets or pipe.task.kind in ("language", "vector"):
        return
    targets = split.targets(0, len(split))
    if pipe.task.kind in CLASSES:
        table = pipe.encode(split)
        batch = pipe.collate(table, np.arange(len(table)))
        logits = oracle(np.asarray(batch.labels), pipe.run(batch).logits.shape[-1])
        right, wrong = (pipe.decode(Output(each), batch) for each in (logits, np.roll(logits, 1, axis=0)))
    else:
        answers = [told(target, pipe.task.kind) for target in targets]
        right = [Prediction(row, answer) for row, answer in enumerate(answers)]
        wrong = [Prediction(row, answers[row - 1]) for row in range(len(answers))]
    best, worse = pipe.task.metrics(right, targets)[0], pipe.task.metrics(wrong, targets)[0]
    expect(best.value > worse.value, f"{best.name}: {best.value} when right, {worse.value} when wrong")


def told(target: Target, kind: str) -> Answer:
    """The answer that says this target: of a question, the text of an acceptable span."""
    if kind == "answers":
        return target[0].text if isinstance(target, tuple) and target and isinstance(target[0], Span) else ""
    return "" if target is None else target


CHECKS: tuple[Callable[[Subject], None], ...] = (
    inputs_fit_the_model,
    encode_leaves_its_input_alone,
    row_alone_answers_as_in_a_batch,
    order_does_not_matter,
    labels_survive,
    loss_is_one_a_row,
    provenance_sums_up,
    settings_come_back,
    trace_answers_as_predict,
    errors_name_the_row,
    perfect_answers_score_best,
    saving_is_exact,
)


def subject_of(task: str | Task, checkpoint: str | Path, rows: Rows, *, folder: Path) -> Subject:
    """A pipeline with this task on that checkpoint, ready for the checks; dropout is off."""
    expect(len(rows.train) >= FEWEST, f"the contract wants at least {FEWEST} training rows, there are {len(rows.train)}")
    pipe = Pipeline.new(task, checkpoint, rows)
    pipe.model.eval()
    return Subject(pipe, rows.train, folder)


def check_task(task: str | Task, checkpoint: str | Path, rows: Rows, *, folder: Path) -> tuple[str, ...]:
    """Run the whole contract; gives the names of the checks that passed. Raises ContractError at the first that does not.

    `rows` needs at least four labelled training rows with different targets. The task must be in `pellucid.tasks.TASKS`
    or an entry point of the group "pellucid.tasks", so that a saved folder can be opened.
    """
    subject = subject_of(task, checkpoint, rows, folder=folder)
    for check in CHECKS:
        try:
            check(subject)
        except ContractError as error:
            raise ContractError(f"{check.__name__}: {error}") from error
    return tuple(check.__name__ for check in CHECKS)
