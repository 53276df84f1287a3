"""Whether a detector finds what a prompt names, in the manner of GenEval (Ghosh et al. 2023, arXiv
2310.11513).

detected         1 if every noun of the prompt is found with a score above 0.3, 0.1 for OWL-ViT
detected-colors  1 if also the surest box of every noun has its colour: among GenEval's ten, the one
                 whose embedding of CLIP is nearest to that of the box. That of a colour is the mean
                 of three texts ("a photo of a red cat"), of length 1.

NaN of a prompt without nouns or, for a detector of a fixed list, with one that is not on it, and of
one that names a colour beside the ten. GenEval cuts objects out by their masks and counts them;
here boxes are cut, and counts are not read.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attncontrol.jobs.item import Item
from attncontrol.prompts.lexicon import COLOR_WORDS
from attncontrol.scores.loading import OfLast, loaded, parts
from attncontrol.scores.phrases import named_in

COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
_TEXTS = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
_OPEN = ("owlvit", "owlv2")  # kinds that find whatever they are asked for
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""


class Detector:
    def __init__(self, model: str, device: str):
        import transformers
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as CLOSED,
        )

        kinds = {
            "owlvit": transformers.OwlViTForObjectDetection,
            "owlv2": transformers.Owlv2ForObjectDetection,
            **dict.fromkeys(CLOSED, transformers.AutoModelForObjectDetection),
        }
        self._model, self._processor = loaded(kinds, model, device, "--detector")
        self._device = device
        self._open = self._model.config.model_type in _OPEN
        names = {} if self._open else self._model.config.id2label
        self._labels = {str(name).lower(): int(number) for number, name in names.items()}
        self._items: Sequence[Item] = ()
        self._boxes = OfLast(self._found)

    def score(self, name: str, clip: Any = None) -> Callable[..., list[float]]:
        return partial(self._score, clip if name == "detected-colors" else None)

    def _score(
        self, clip: Any, pictures: Sequence[Image.Image], items: Sequence[Item]
    ) -> list[float]:
        self._items = items
        found = self._boxes(pictures)
        return [self._value(clip, *each) for each in zip(pictures, items, found, strict=True)]

    def _value(self, clip: Any, picture: Image.Image, item: Item, found: dict[str, Box]) -> float:
        things = named_in(item.prompt)
        colors = [
            (each.noun, word)
            for each in things
            for word in each.modifiers
            if clip and word in COLOR_WORDS
        ]
        nouns = {each.noun for each in things}
        known = self._open or all(self._label(noun) is not None for noun in nouns)
        if not nouns or not known or {word for _, word in colors} - set(COLORS):
            return float("nan")
        return float(
            nouns <= found.keys()
            and all(_color(clip, picture, found[noun], noun) == word for noun, word in colors)
        )

    def _found(self, pictures: Sequence[Image.Image]) -> list[dict[str, Box]]:
        """The surest box of every noun of its prompt."""
        places: dict[tuple[str, ...], list[int]] = {}
        for k, item in enumerate(self._items):  # by what is looked for
            nouns = tuple(dict.fromkeys(each.noun for each in named_in(item.prompt)))
            places.setdefault(nouns if self._open else (), []).append(k)
        found: dict[int, dict[str, Box]] = {}
        for nouns, numbers in places.items():
            for part in parts(numbers) if nouns or not self._open else []:
                boxes = self._detect([pictures[k].convert("RGB") for k in part], nouns)
                found |= dict(zip(part, boxes, strict=True))
        return [self._of_nouns(found.get(k, {}), item) for k, item in enumerate(self._items)]

    def _of_nouns(self, boxes: dict[Any, Box], item: Item) -> dict[str, Box]:
        nouns = [each.noun for each in named_in(item.prompt)]
        keys = {noun: noun if self._open else self._label(noun) for noun in nouns}
        return {noun: boxes[key] for noun, key in keys.items() if key in boxes}

    def _label(self, noun: str) -> int | None:
        """Of the noun, or of what it is the plural of."""
        return self._labels.get(noun, self._labels.get(noun.removesuffix("s")))

    @torch.inference_mode()
    def _detect(self, pictures: list[Image.Image], nouns: tuple[str, ...]) -> list[dict[Any, Box]]:
        """By noun, or by number of a label."""
        sizes = [(picture.height, picture.width) for picture in pictures]
        asked = {"text": [[f"a photo of a {noun}" for noun in nouns]] * len(pictures)}
        given = self._processor(
            images=pictures, **(asked if self._open else {}), return_tensors="pt"
        ).to(self._device)
        made = self._model(**given)
        if self._open:
            told = self._processor.post_process_grounded_object_detection(
                made, threshold=0.1, target_sizes=sizes
            )
        else:
            told = self._processor.post_process_object_detection(
                made, threshold=0.3, target_sizes=sizes
            )
        return [_surest(each, nouns if self._open else None) for each in told]


def _surest(told: dict[str, Any], nouns: tuple[str, ...] | None) -> dict[Any, Box]:
    boxes: dict[Any, Box] = {}
    for k in told["scores"].argsort(descending=True).tolist():
        number = int(told["labels"][k])
        left, top, right, bottom = told["boxes"][k].tolist()
        boxes.setdefault(nouns[number] if nouns else number, (left, top, right, bottom))
    return boxes


def _color(clip: Any, picture: Image.Image, box: Box, noun: str) -> str:
    left, top, right, bottom = (round(side) for side in box)
    part = picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    of: Tensor = clip.pictures([part])[0]
    return COLORS[int((_colors(clip, noun) @ of).argmax())]


@cache
def _colors(clip: Any, noun: str) -> Tensor:
    """[color feature], of length 1."""
    texts = [text.format(color, noun) for color in COLORS for text in _TEXTS]
    of = clip.texts(texts).view(len(COLORS), len(_TEXTS), -1).mean(1)
    return F.normalize(of, dim=-1)
