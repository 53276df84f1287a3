"""Names of the suites and what each measures; without torch, for the command line."""

MEASURES = {
    "pairs": ("present", "confidence"),
    "triples": ("present", "confidence"),
    "colors": ("present", "bound", "confidence"),
    "layout": ("present", "iou", "inside", "confidence"),
}
SUITES = tuple(MEASURES)
