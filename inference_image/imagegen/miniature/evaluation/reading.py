"""Reading words off pictures, and comparing them with what should be there."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

__all__ = ["Reader", "TextScore", "score_text", "similarity"]

_ENLARGEMENT: Final = 4
"""Letters of 24 pixels are smaller than what OCR was made for."""

_LEAST_CONFIDENCE: Final = 0.5


class Reader:
    """RapidOCR with the models that its wheel carries; on the CPU, the same result every time.

    Parameters
    ----------
    threads
        Of the processor; more than one are of little use for small pictures.
    """

    def __init__(self, threads: int = 1) -> None:
        from rapidocr import RapidOCR  # noqa: PLC0415 - commands that read nothing do without

        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.use_cls": False,  # no picture is upside down
                # The detector would enlarge a small picture again: ten times slower, not better.
                "Det.limit_side_len": 256,
                "Det.limit_type": "min",
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            }
        )
        self.name = f"rapidocr {version('rapidocr')}"

    def words(self, picture: NDArray[np.uint8]) -> list[str]:
        """Read the words of a picture: capitals and digits, signs left out, in reading order.

        What is read with a confidence below one half does not count.
        """
        height, width = picture.shape[:2]
        large = Image.fromarray(picture).resize(
            (width * _ENLARGEMENT, height * _ENLARGEMENT), Image.Resampling.LANCZOS
        )
        found = self._engine(np.asarray(large)[:, :, ::-1])  # it expects blue first
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return [
            word
            for line, confidence in lines
            if confidence >= _LEAST_CONFIDENCE
            for word in _words(line)
        ]


def _words(line: str) -> list[str]:
    text = unicodedata.normalize("NFKC", line).upper()
    bare = ("".join(sign for sign in word if sign.isalnum()) for word in text.split())
    return [word for word in bare if word]


def similarity(one: str, other: str) -> float:
    """Give 1 less the edit distance (Levenshtein) relative to the longer word: 0 to 1."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return 1 - row[-1] / max(len(one), len(other), 1)


@dataclass(frozen=True)
class TextScore:
    """How words that were read compare with those that should be there.

    Attributes
    ----------
    exact
        Per wanted word, whether it was read to the letter.
    similarities
        Per wanted word, its similarity to the word that was read for it; 0 without one.
    invented
        Words that were read beside the wanted ones.
    """

    exact: tuple[bool, ...]
    similarities: tuple[float, ...]
    invented: int


def score_text(wanted: Sequence[str], read: Sequence[str]) -> TextScore:
    """Match wanted words with read ones, one to one, so that they are as similar as can be."""
    table = np.array([[similarity(word, seen) for seen in read] for word in wanted])
    scores = np.zeros(len(wanted))
    if table.size:
        rows, columns = linear_sum_assignment(table, maximize=True)
        scores[rows] = table[rows, columns]
    matched = int(np.count_nonzero(scores))
    return TextScore(
        tuple(bool(score == 1) for score in scores),
        tuple(float(score) for score in scores),
        len(read) - matched,
    )
