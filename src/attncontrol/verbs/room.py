"""How much a recording would hold, before anything is recorded."""

import math

from attncontrol.attention.between import Direction
from attncontrol.checks.arguments import in_bytes
from attncontrol.errors import SizeError
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session
from attncontrol.running.wiring import Sites


def bytes_of(
    run: Session,
    call: DenoiserCall,
    sites: Sites,
    direction: Direction,
    words: int,
    heads: bool,
) -> int:
    """Of the maps of one picture, branch and step in float32."""
    numbers = 0
    for site in sites.values():
        cells = math.prod(run.family.layout(run.denoiser, call.arguments, site).grid)
        squares = {"image->image": cells * cells, "text->text": words * words}
        numbers += squares.get(direction, cells * words) * (site.heads if heads else 1)
    return 4 * numbers


def require_room(size: int, limit: float) -> None:
    """Raises SizeError if a recording of so many bytes is larger than the limit."""
    if size > limit:
        raise SizeError(
            f"this recording would hold {in_bytes(size)}, more than limit={in_bytes(limit)}; name "
            "words, record fewer layers or steps, drop keep=..., or raise limit=..."
        )
