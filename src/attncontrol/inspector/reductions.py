"""What a page says of what was averaged, reduced and left out."""

from attncontrol.inspector import payload
from attncontrol.maps.recorded import AttentionMaps


def absent(steps: int) -> list[str]:
    """About steps in which layers did not run."""
    if not steps:
        return []
    return [
        f"Layers did not run in {steps} of their steps; means leave these out, "
        "and their own maps are empty."
    ]


def before(maps: AttentionMaps, axes: payload.Axes) -> list[str]:
    """What the recording did."""
    said = [f"Recorded as: {', '.join(maps.reductions)}."] if maps.reductions else []
    missing = [
        axis
        for axis, gone in (
            ("step", axes.steps == 1 < len(maps.steps)),
            ("head", not axes.has_heads),
        )
        if gone
    ]
    if missing:
        means = " and ".join(f"{axis}s" for axis in missing)
        said.append(f"Means over {means}; record with keep={tuple(missing)} to see them apart.")
    return said


def reduced(axes: payload.Axes, detail: payload.Detail, left_out: int) -> list[str]:
    """What the page does on top of that."""
    side = max(max(grid) for grid in axes.grids.values())
    said = [
        "8 bits per cell on a square-root scale: value = m (q / 255)², m the maximum of each map; "
        "off by less than 0.4 % of m."
    ]
    if side > detail.mean:
        said.append(
            f"Means over steps: grids of at most {detail.mean} cells per side (recorded: {side})."
        )
    if axes.steps > 1 and side > detail.step:
        said.append(
            f"Single steps: grids of at most {detail.step} cells per side (recorded: {side})."
        )
    if axes.steps > detail.steps:
        said.append(f"{axes.steps} steps are shown as {detail.steps} means of neighbours.")
    if axes.has_heads:
        over = "steps and frames" if axes.frames > 1 else "steps"
        small = (
            f", grids of at most {detail.head} cells per side (recorded: {side})"
            if side > detail.head
            else ""
        )
        said.append(
            f"Heads: means over {over}{small}. "
            "Entropy and top share are computed on the recorded grid."
        )
    if left_out:
        said.append(
            f"{left_out} text positions are left out: repeated special tokens and all after "
            f"{payload.WORDS} words."
        )
    return said
