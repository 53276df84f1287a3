"""Names of the suites and what each measures; without torch, for the command line."""

from collections.abc import Mapping

from attncontrol.batch.inversions import CLASSES

MEASURES = {
    "pairs": ("present", "confidence"),
    "triples": ("present", "confidence"),
    "colors": ("present", "bound", "confidence"),
    "layout": ("present", "iou", "inside", "confidence"),
    "attributes": ("present", "bound", "confidence"),
    "four": ("present", "confidence"),
}

OWN = "prompts"
"""The suite of prompts of one's own."""
OF_OWN = ("present", "bound", "confidence")
"""What is measured of them on bundled models."""

_WITH_SOURCE = ("shown", "kept", "both", "iou", "outside", "other", "tint", "confidence")
EDITS: Mapping[str, tuple[str, ...]] = {
    "recolour": _WITH_SOURCE,
    "swap": _WITH_SOURCE,
    "add": _WITH_SOURCE,
    "remove": _WITH_SOURCE,
    "move": _WITH_SOURCE,
    "regions": ("shown", "iou", "confidence"),
    "style": ("shown", "kept", "both", "outside", "confidence"),
}
"""What is measured of every kind of edit; see ``bench.edit_suite``."""

PHOTOS = ("recolour", "swap", "add", "remove", "move")
"""The kinds of edits of true scenes; see ``bench.photos``."""

INVERSIONS = tuple(CLASSES)

DECIBELS = ("outside", "other")
"""The measures that are no shares."""

SHARES = {
    *("detected", "detected-colors", "vqa"),
    *(name for names in (*MEASURES.values(), *EDITS.values()) for name in names),
} - {*DECIBELS}
"""The measures between 0 and 1, which are shown in percent; of the others the numbers are."""

SUITES = (*MEASURES, "edits", "photos")
