"""What a set of pictures is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from imagegen.miniature.evaluation.cases import Case
from imagegen.miniature.evaluation.pixels import observe
from imagegen.miniature.evaluation.reading import Reader, TextScore, score_text
from imagegen.miniature.scenes.words import SHAPES

__all__ = ["PictureScore", "Scores", "score_picture", "score_pictures"]


@dataclass(frozen=True)
class PictureScore:
    """What is right in a picture.

    `count` and `shapes` are None where no shapes are to be counted. `shapes` says that there are as
    many as there should be and all of the right shape; `colours`, that ground, letters and shapes
    have the colours that they should have.
    """

    text: TextScore
    count: bool | None
    shapes: bool | None
    colours: bool


@dataclass(frozen=True)
class Scores:
    """Rates over a set of pictures, 0 to 1; None where nothing was asked for.

    Attributes
    ----------
    pictures, words, counted
        How many pictures, wanted words, and pictures with shapes to count.
    exact, exact_low, exact_high
        Share of words read to the letter, with its exact 95 % interval (Clopper and Pearson).
    similarity
        Mean similarity of words, 0 to 1.
    invented
        Words that nobody asked for, per picture.
    count, shapes, colours
        Share of pictures with the right number, the right shapes, and the right colours.
    """

    pictures: int
    words: int
    counted: int
    exact: float | None
    exact_low: float | None
    exact_high: float | None
    similarity: float | None
    invented: float
    count: float | None
    shapes: float | None
    colours: float


def score_picture(picture: NDArray[np.uint8], case: Case, reader: Reader) -> PictureScore:
    """Look at one picture."""
    scene, seen = case.scene, observe(picture, case.scene)
    colours = seen.ground == scene.ground
    if scene.words:
        colours = colours and seen.ink == scene.ink
    if scene.shape is not None:
        colours = colours and seen.colour == scene.colour
    count = shapes = None
    if scene.shape in SHAPES:
        count = seen.count == scene.count
        shapes = seen.shapes == (scene.shape,) * scene.count
    text = score_text(scene.words, reader.words(picture))
    return PictureScore(text, count, shapes, colours)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def score_pictures(
    pictures: Sequence[NDArray[np.uint8]], cases: Sequence[Case], reader: Reader
) -> Scores:
    """Look at all pictures.

    Parameters
    ----------
    pictures, cases
        As many of both, at least one.
    reader
        Reads the words.
    """
    each = [
        score_picture(picture, case, reader) for picture, case in zip(pictures, cases, strict=True)
    ]
    exact = [right for score in each for right in score.text.exact]
    interval = binomtest(sum(exact), len(exact)).proportion_ci() if exact else None
    counts = [score.count for score in each if score.count is not None]
    return Scores(
        pictures=len(each),
        words=len(exact),
        counted=len(counts),
        exact=_mean(exact),
        exact_low=float(interval.low) if interval else None,
        exact_high=float(interval.high) if interval else None,
        similarity=_mean([value for score in each for value in score.text.similarities]),
        invented=sum(score.text.invented for score in each) / len(each),
        count=_mean(counts),
        shapes=_mean([score.shapes for score in each if score.shapes is not None]),
        colours=sum(score.colours for score in each) / len(each),
    )
