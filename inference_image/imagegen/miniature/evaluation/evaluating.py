"""Evaluation of a model: make pictures at every setting, look at them, keep what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from imagegen.miniature.evaluation.cases import Case
from imagegen.miniature.evaluation.generating import Model, Setting
from imagegen.miniature.evaluation.grid import BASE, CONTROLS, Trial
from imagegen.miniature.evaluation.reading import Reader
from imagegen.miniature.evaluation.results import Result, keep, read_results, results_file
from imagegen.miniature.evaluation.scoring import Scores, score_pictures
from imagegen.miniature.scenes import draw
from imagegen.quality.stability import pixel_stability_deviation

__all__ = ["DRAWN", "Plan", "control_results", "drawn", "evaluate"]

DRAWN: Final = "drawn controls"
"""Stands in place of a model's name for pictures that were drawn, not generated."""

_REPEATED: Final = 2
"""Batches, or pictures, that are made again to see whether they stay the same."""

_MB: Final = 1e6

Say = Callable[[str], None]


class Plan:
    """What to evaluate a model with.

    Parameters
    ----------
    cases
        Prompts for the base setting.
    few
        How many of them for every other setting; at least a whole batch.
    seed
        That the cases were chosen with.
    """

    def __init__(self, cases: Sequence[Case], *, few: int, seed: int) -> None:
        self.cases = tuple(cases)
        self.few = few
        self.seed = seed

    def cases_for(self, trial: Trial) -> tuple[Case, ...]:
        """Give the prompts of a trial."""
        few = max(self.few, trial.setting.batch_size)
        return self.cases if trial.varied == BASE else self.cases[:few]


def drawn(cases: Sequence[Case]) -> list[NDArray[np.uint8]]:
    """Draw what the pictures of the cases should look like."""
    return [draw(case.scene, np.random.default_rng(case.seed)) for case in cases]


def _control(model: str, digest: str, scores: Scores, plan: Plan, reader: Reader) -> Result:
    return Result(
        model=model,
        digest=digest,
        varied=CONTROLS,
        steps=None,
        guidance_scale=None,
        scheduler=None,
        precision=None,
        batch_size=None,
        seed=plan.seed,
        **asdict(scores),
        repeat_psd=None,
        batch_psd=None,
        milliseconds=None,
        processor_milliseconds=None,
        peak_mb=None,
        reader=reader.name,
    )


def control_results(folder: Path, plan: Plan, reader: Reader) -> Result:
    """Look at drawn pictures: what is wrong with them is wrong with the eyes."""
    scores = score_pictures(drawn(plan.cases), plan.cases, reader)
    result = _control(DRAWN, "", scores, plan, reader)
    keep(results_file(folder, "drawn"), [result])
    return result


def _through_autoencoder(model: Model, plan: Plan, reader: Reader) -> Result:
    """Look at drawn pictures that went through the model's autoencoder."""
    cases = plan.cases[: plan.few]
    scores = score_pictures(model.reconstruct(drawn(cases)), cases, reader)
    return _control(model.name, model.digest, scores, plan, reader)


def _repeat_deviation(model: Model, trial: Trial, cases: Sequence[Case]) -> float:
    again = cases[: _REPEATED * trial.setting.batch_size]
    first = model.make(again, trial.setting).pictures
    second = model.make(again, trial.setting).pictures
    return _largest(first, second)


def _batch_deviation(model: Model, setting: Setting, cases: Sequence[Case]) -> float | None:
    if setting.batch_size == 1:
        return None
    first = cases[: setting.batch_size]
    together = model.make(first, setting).pictures
    return _largest(together[:_REPEATED], model.alone(first[:_REPEATED], setting))


def _largest(first: Sequence[NDArray[np.uint8]], second: Sequence[NDArray[np.uint8]]) -> float:
    pairs = zip(first, second, strict=True)
    return max(pixel_stability_deviation(pair) for pair in pairs)


def _try(model: Model, digest: str, trial: Trial, plan: Plan, reader: Reader) -> Result:
    setting, cases = trial.setting, plan.cases_for(trial)
    made = model.make(cases, setting)
    scores = score_pictures(made.pictures, cases, reader)
    return Result(
        model=model.name,
        digest=digest,
        varied=trial.varied,
        **asdict(setting),
        seed=plan.seed,
        **asdict(scores),
        repeat_psd=_repeat_deviation(model, trial, cases),
        batch_psd=_batch_deviation(model, setting, cases),
        milliseconds=made.seconds * 1000,
        processor_milliseconds=made.processor_seconds * 1000,
        peak_mb=None if made.peak_bytes is None else made.peak_bytes / _MB,
        reader=reader.name,
    )


def evaluate(
    model: Model,
    *,
    trials: Sequence[Trial],
    plan: Plan,
    folder: Path,
    reader: Reader,
    say: Say,
) -> list[Result]:
    """Measure a model at every setting; what was measured before is not measured again.

    Parameters
    ----------
    model
        The model.
    trials
        The settings.
    plan
        The prompts.
    folder
        Where results are kept; they are written after every setting.
    reader
        Reads the words.
    say
        Told a line after every setting, with the time left.
    """
    digest = model.digest
    file = results_file(folder, model.name)
    known = {result.key: result for result in read_results(file) if result.digest == digest}
    results = [_through_autoencoder(model, plan, reader)]
    spent = done = 0.0
    efforts = [
        _effort(trial, plan)
        for trial in trials
        if _key(model.name, digest, trial, plan, reader) not in known
    ]
    for trial in trials:
        result = known.get(_key(model.name, digest, trial, plan, reader))
        if result is None:
            started = time.monotonic()
            result = _try(model, digest, trial, plan, reader)
            spent, done = spent + time.monotonic() - started, done + _effort(trial, plan)
            left = spent / done * (sum(efforts) - done)
            say(f"{_told(result)}; about {left / 60:.0f} min left")
        results.append(result)
        keep(file, [*results, *_others(known, results)])
    return results


def _others(known: dict[tuple[object, ...], Result], results: Sequence[Result]) -> list[Result]:
    """Give what was measured before, and not now."""
    now = {result.key for result in results}
    return [result for key, result in known.items() if key not in now]


def _key(name: str, digest: str, trial: Trial, plan: Plan, reader: Reader) -> tuple[object, ...]:
    setting = trial.setting
    return (
        name,
        digest,
        trial.varied,
        setting.steps,
        setting.guidance_scale,
        setting.scheduler,
        setting.precision,
        setting.batch_size,
        plan.seed,
        len(plan.cases_for(trial)),
        reader.name,
    )


def _effort(trial: Trial, plan: Plan) -> float:
    """Estimate the work of a trial, in passes of the denoiser."""
    passes = trial.setting.steps * (2 if trial.setting.guidance_scale > 1 else 1)
    reading = 4
    return len(plan.cases_for(trial)) * (passes + reading)


def _told(result: Result) -> str:
    exact = "no words" if result.exact is None else f"{result.exact:.2f} exact"
    return (
        f"{result.model}, {result.varied}: {result.steps} steps, guidance "
        f"{result.guidance_scale:g}, {result.scheduler}, {result.precision}, batch "
        f"{result.batch_size}: {exact}, colours {result.colours:.2f}, "
        f"{result.milliseconds:.0f} ms"
    )
