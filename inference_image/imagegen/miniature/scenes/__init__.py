"""Pictures to train on and to be measured by: fictional brand words, counted shapes, emblems.

A :class:`Scene` says what is to be seen, :func:`prompt` puts it into words and :func:`draw` into a
picture. Everything is drawn here, with no font and no data from elsewhere.
"""

from imagegen.miniature.scenes.drawing import draw
from imagegen.miniature.scenes.grammar import prompt, vocabulary
from imagegen.miniature.scenes.scene import FONTS, HEIGHT, LAYOUTS, WIDTH, Font, Look, Scene
from imagegen.miniature.scenes.split import DEFAULT_FONTS, Split, is_held_out, scenes
from imagegen.miniature.scenes.tokens import MAX_TOKENS, tokenizer

__all__ = [
    "DEFAULT_FONTS",
    "FONTS",
    "HEIGHT",
    "LAYOUTS",
    "MAX_TOKENS",
    "WIDTH",
    "Font",
    "Look",
    "Scene",
    "Split",
    "draw",
    "is_held_out",
    "prompt",
    "scenes",
    "tokenizer",
    "vocabulary",
]
