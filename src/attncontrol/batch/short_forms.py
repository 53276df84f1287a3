"""Words, boxes and moves as people type them: on the command line, and in files of a job."""

import math

from attncontrol.errors import SettingError

Box = tuple[float, float, float, float]


def parse_groups(text: str) -> list[list[str]]:
    """``"red+car,cat"`` -> [["red", "car"], ["cat"]]. Raises SettingError."""
    found = [parse_group(group) for group in text.split(",")]
    if not all(word for group in found for word in group):
        raise SettingError(f"{text!r}: write words separated by commas, as in red+car,cat")
    return found


def parse_group(text: str) -> list[str]:
    """``"red+car"`` -> ["red", "car"]."""
    return [word.strip() for word in text.split("+")]


def parse_box(text: str) -> tuple[str, Box]:
    """``"cat=0,0.2,0.5,1"`` -> ("cat", (0.0, 0.2, 0.5, 1.0)). Raises SettingError."""
    word, _, numbers = text.rpartition("=")
    try:
        left, top, right, bottom = map(float, numbers.split(","))
    except ValueError:
        why = "write word=left,top,right,bottom in fractions of the picture"
    else:
        if word.strip() and 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return word.strip(), (left, top, right, bottom)
        if not word.strip():
            why = "it names no word; write word=left,top,right,bottom"
        elif 1 < max(left, top, right, bottom) < math.inf:
            why = "these look like pixels; write fractions of the picture, 0 to 1"
        else:
            why = "left < right and top < bottom must lie between 0 and 1"
    raise SettingError(f"{text}: {why}")


def parse_move(text: str) -> tuple[str, float, float]:
    """``"cat=0.3,0"`` -> ("cat", 0.3, 0.0). Raises SettingError."""
    word, _, numbers = text.rpartition("=")
    try:
        right, down = map(float, numbers.split(","))
    except ValueError:
        right = down = math.nan
    if not word.strip() or not (-1 < right < 1 and -1 < down < 1):
        raise SettingError(
            f"{text!r}: write word=right,down in widths and heights of the picture, between -1 and "
            "1, such as cat=0.3,0"
        )
    if right == down == 0:
        raise SettingError(
            f"{text!r}: nothing would move; write how far to the right or down, such as "
            f"{word.strip()}=0.3,0"
        )
    return word.strip(), right, down
