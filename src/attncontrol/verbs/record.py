"""``record``: keep the attention of a pipeline call, reduced while it runs."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from attncontrol.attention.between import Direction, sites_with
from attncontrol.attention.sites import TEXT, Where
from attncontrol.checks.arguments import Bytes, Count, Index, Such, checked
from attncontrol.errors import WordError
from attncontrol.families.autoencoder import cell_side
from attncontrol.maps.opened import path_of
from attncontrol.maps.reading import load
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import Encoding, require_encoding
from attncontrol.maps.streaming import Stream, placed
from attncontrol.prompts.words import Words
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.recorder import Recorder
from attncontrol.verbs.taking import Taking
from attncontrol.verbs.wish import Axis, Wish

_WORDS = Such(
    "a non-empty list such as ['cat', 'frog'], or one for each prompt, {prompt: [...]}",
    lambda words: words is None or len(words) > 0,
)


@checked
@contextmanager
def record(
    pipe: Any,
    words: Annotated[Words | None, _WORDS, WordError] = None,
    *,
    where: Where | None = None,
    direction: Direction = "image->text",
    keep: Collection[Axis] = (),
    branches: Annotated[
        Sequence[str],
        Such("a list such as ('cond', 'uncond')", lambda of: 0 < len(of) == len(set(of))),
    ] = ("cond",),
    steps: Annotated[
        Collection[Index] | None,
        Such("a list of numbers of steps, such as [0, 5]", lambda of: of is None or len(of) > 0),
    ] = None,
    to: Annotated[Path | str | None, Such("a folder", lambda to: to != "")] = None,
    encoding: Encoding = "float32",
    limit: Bytes = 4.0 * 2**30,
) -> Iterator[AttentionMaps]:
    """Records the attention of one pipeline call; the pictures are bit-identical to those made
    without.

        with record(pipe, ["cat", "frog"]) as maps:
            maps.pictures = pipe("a cat and a frog").images

    ``words`` are words or phrases of the prompt ("cat", "red car", "cat#2"), positions of its text
    (2, or Span("turtle", (5, 6)) with a name), which need no prompt, or a mapping from prompt to
    words; None records every text position. A word need be in one of the prompts only: where it is
    not its maps are NaN. Means over heads and steps are formed while the pipeline runs; ``keep``
    keeps these axes. ``branches`` are "cond" and, under classifier-free guidance, "uncond", whose
    words are those of the negative prompt, and "reference" of models that make a third prediction
    of the picture that they are given, without the prompt; the first one is what the maps show,
    ``maps.of("uncond")`` has its own labels. ``steps`` are the indices of the steps to record, None
    for all. ``direction`` other than "image->text" needs joint attention or, for "image->image",
    self-attention (see ``related``); ``where`` is every site that has it unless given. ``to`` is a
    folder that gets every step as soon as it is complete, in an ``encoding`` of ``save``, so that
    the memory of one step is held; the steps are kept. ``pictures`` set inside the block are put
    there too. A run that is stopped leaves its complete steps, which ``load`` calls partial; a new
    run replaces them. A complete record in the folder stays until the new one is complete, and one
    that is stopped then leaves nothing.

    Means count the steps in which a site and a branch ran; kept steps in which they did not are
    NaN. A cache of the denoiser stays on, and a warning names the steps that it took from others.
    Parts of a picture that are denoised one after another in a step count as one mean. Inside
    ``edit`` the attention is the edited one.

    Yields AttentionMaps, complete when the block ends. Raises WordError and SiteError; CallError if
    the text encoders were given other ids than those of the prompt (words by position do without);
    SizeError if the recording would hold more than ``limit`` bytes (float32), before the first
    step; CouplingError for steps and branches that the call does not have, as soon as that is
    known, if nothing was recorded, and if the pipeline is called twice; WriteError if
    the folder holds something else or another run is recorded into it, before anything runs;
    SettingError for ``pictures`` that are no PIL images of one size.
    """
    run = attach(pipe)
    require_encoding(encoding)
    folder = None if to is None else path_of(to)
    sites = sites_with(tuple(run.sites.values()), direction, where)
    kept = frozenset(keep) if folder is None else frozenset(keep) | {"step"}
    with nullcontext() if folder is None else placed(folder) as place:
        stream = None if place is None else Stream(place, encoding)
        wish = Wish(words, sites, direction, kept, tuple(branches), steps, limit, stream)
        recorder, maps = Recorder(run, wish, Taking(run.source_of)), AttentionMaps()
        hooks = Hooks(
            sites=sites, listen=recorder.listen, before=recorder.before,
            ended=recorder.taking.ended, cached=True,
        )  # fmt: skip
        with run.hooked(hooks):
            yield maps
        recording = recorder.finish(maps.pictures)
    if folder is not None:
        recording = load(folder, limit=math.inf).recording
    maps._complete(recording)


@checked
def estimate_bytes(
    pipe: Any,
    *,
    words: Count,
    height: Count,
    width: Count,
    steps: Count,
    batch: Count = 1,
    branches: Count = 1,
    where: Where = TEXT,
    keep: Collection[Axis] = (),
) -> int:
    """Bytes that a recording of ``words`` words will hold for pictures of height x width pixels
    (float32); of videos ``batch`` counts the frames of the maps. Raises ModelError."""
    side = cell_side(pipe)
    latent = height // side, width // side
    cells = 0
    for site in where.select(attach(pipe).sites.values()):
        h, w = site.grid(*latent)
        cells += h * w * (site.heads if "head" in keep else 1)
    return 4 * cells * words * batch * branches * (steps if "step" in keep else 1)
