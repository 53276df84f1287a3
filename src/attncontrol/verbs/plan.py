"""Edits with their places, in which steps they act, and what they make of a call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.ahead import each_call, each_step
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Seen, fitting
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Site, Where, path_matches
from attncontrol.attention.source import Place, SourcePass, kept_names
from attncontrol.attention.words import require_words
from attncontrol.errors import EditError, SiteError
from attncontrol.verbs.places import On, as_edit, chosen_heads
from attncontrol.verbs.some_heads import of_rows, on_heads


@dataclass(frozen=True, eq=False)
class _Placed:
    """``heads`` [image head] by site, or [1 head] if the same ones are edited in all images."""

    edit: Edit
    heads: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """Edits of attention at ``sites``, for the share ``steps`` of a run; in their order, each sees
    what those before it made of a call."""

    placed: tuple[_Placed, ...]
    sites: Mapping[str, Site]
    steps: tuple[float, float]

    def __repr__(self) -> str:
        return ", ".join(str(one.edit) for one in self.placed)

    @classmethod
    def of(
        cls,
        placed: Sequence[On],
        known: Mapping[str, Site],
        steps: tuple[float, float],
        localising: Where | None = None,
    ) -> "Plan":
        """``localising`` is where words are known best. Raises SiteError and EditError for what has
        no place."""
        edits = []
        for on in placed:
            edit = as_edit(on.edit)
            own = localising if edit.where == "localising" else edit.where
            try:
                edits.append(_Placed(edit, chosen_heads(own, on, known)))
            except SiteError as error:
                own_place = on.where is None and on.heads is None
                if own_place and edit.made_for:
                    raise SiteError(f"{edit.made_for}: {error}") from error
                raise
        names = {name for one in edits for name in one.heads}
        if any(one.edit.texts for one in edits):  # where they are hidden
            names |= {site.name for site in known.values() if site.kind in ("cross", "joint")}
        sites = {name: site for name, site in known.items() if name in names}
        return cls(tuple(edits), sites, (float(steps[0]), float(steps[1])))

    @property
    def sources(self) -> tuple[int, ...]:
        """The images from which attention is taken."""
        every = [of for of in self._every if not isinstance(of, SourcePass)]
        listed = [(source,) if isinstance(source, int) else source for source in every]
        return tuple(dict.fromkeys(image for images in listed for image in images))

    def source_of(self, image: int) -> int:
        """The image that another one takes from; itself if from none."""
        for of in self._every:
            number = of[image] if isinstance(of, tuple) and image < len(of) else of
            if isinstance(number, int) and number != image:
                return number
        return image

    @property
    def kept(self) -> tuple[SourcePass, ...]:
        """The kept passes from which attention is taken."""
        return tuple(dict.fromkeys(of for of in self._every if isinstance(of, SourcePass)))

    @property
    def _every(self) -> list[Any]:
        return [one.edit.source for one in self.placed if one.edit.source is not None]

    @property
    def modules(self) -> tuple[str, ...]:
        """Those that are no attention and whose outputs are changed."""
        return tuple(dict.fromkeys(name for one in self.placed for name in one.edit.modules))

    @property
    def texts(self) -> tuple[str, ...]:
        """Those that follow the text of the prompt."""
        return tuple(dict.fromkeys(text for one in self.placed for text in one.edit.texts))

    def shows(self, progress: float) -> bool:
        """Whether these are used at this share of the run."""
        return any(one.edit.texts for one in self._acting(progress))

    def taken(self, call: AttentionCall, now: Moment) -> Iterator[tuple[_Placed, Place]]:
        """What acting edits take of their sources at a call."""
        for one in self._acting(now.progress):
            here = one.edit.source is not None and call.site.name in one.heads
            if not here or (taken := one.edit.takes(call, now)) is None:
                continue
            for branch in now.branches:
                if taken.branches is None or branch in taken.branches:
                    for name in kept_names(taken, call):
                        if name != "maps" or branch == "cond":
                            yield one, now.place(name, branch, call.site.name)

    def blending(self, progress: float) -> list[Edit]:
        """The acting edits that take the latents of their sources."""
        return [one.edit for one in self._acting(progress)
                if one.edit.blends and one.edit.source is not None]  # fmt: skip

    def shows_source(self, progress: float) -> bool:
        """Whether an acting edit takes the decoded picture of its source."""
        return any(type(edit).decoded is not Edit.decoded for edit in self.blending(progress))

    @property
    def shows_sources(self) -> bool:
        """Whether an edit takes the decoded picture of its source at some time."""
        return any(type(one.edit).decoded is not Edit.decoded for one in self.placed)

    def changes(self, module: str, progress: float) -> bool:
        """Whether an acting edit with a source takes the output of a module."""
        return any(path_matches(module, pattern) for one in self._acting(progress)
                   if one.edit.source is not None for pattern in one.edit.modules)  # fmt: skip

    def _require_kept(self, call: AttentionCall, now: Moment) -> None:
        """Raises CouplingError where the rest of the run takes what a source does not have."""
        for then in each_call(now):
            for one, place in self.taken(call, then):
                if isinstance(one.edit.source, SourcePass):
                    one.edit.source.require(place)
                    if place.name == "maps" and not one.heads[call.site.name].all():
                        raise EditError(
                            f"{type(one.edit).__name__} looks at some heads of {call.site.name}, "
                            "but of a kept source the mean over all is known: leave heads=... out"
                        )
        for then in each_step(now):
            for edit in self.blending(then.progress):
                if isinstance(edit.source, SourcePass):
                    edit.source.require(then.place("latents"))

    def require_words(self, now: Moment) -> None:
        """Raises WordError for words that edits name where they look at text, and no prompt has."""
        for one in self.placed:
            if any(self.sites[name].kind != "self" for name in one.heads):
                require_words(one.edit, now)

    def require_attention_alone(self, where: str) -> None:
        """Raises EditError for edits of other modules, of latents, or with texts of their own."""
        for edit in (one.edit for one in self.placed):
            latents = (type(edit).begun, type(edit).stepped) != (Edit.begun, Edit.stepped)
            pictures = type(edit).decoded is not Edit.decoded
            if edit.modules or edit.texts or latents or pictures:
                raise EditError(f"{edit} changes more than attention, which cannot be done {where}")

    def acts(self, progress: float) -> bool:
        """Whether anything is changed at this share of the run."""
        return any(one.heads for one in self._acting(progress))

    def _acting(self, progress: float) -> list[_Placed]:
        inside = self.steps[0] <= progress <= self.steps[1]
        return [one for one in self.placed if inside and one.edit.acts(progress)]

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        if self.kept and (now.step.in_turn or now.step.index == now.step.stage == 0):
            self._require_kept(call, now)
        here = [one for one in self._acting(now.progress) if call.site.name in one.heads]
        if not here:
            return call
        if len(here) == 1 and here[0].heads[call.site.name].all():
            return here[0].edit(call, now)
        outputs: list[tuple[_Placed, Tensor, Tensor]] = []
        for one in here:
            chosen = of_rows(one.heads[call.site.name], now).to(call.query.device)
            _require_calls(outputs, chosen, one, call)
            result = on_heads(one.edit, call, now, chosen)
            if isinstance(result, Seen):
                outputs.append((one, chosen, result.output))
                result = result.call
            call = result
        if not outputs:
            return call
        output = call.run()
        for _, chosen, changed in outputs:
            output = torch.where(chosen, changed, output)
        return Seen(output, call)

    def passed(self, name: str, inputs: Mapping[str, Any], output: Any, now: Moment) -> Any:
        """The output of a module."""
        for one in self._acting(now.progress):
            if any(path_matches(name, pattern) for pattern in one.edit.modules):
                output = one.edit.passed(name, inputs, output, now)
        return output

    def begun(self, latents: Tensor, drawn: Tensor, now: Moment) -> Tensor:
        """The latents from which a run begins. Raises EditError for edits that change these, and do
        not act yet."""
        acting = self._acting(now.progress)
        for one in self.placed:
            begun = one.edit.begun(latents, drawn, now)
            if begun is not latents and one not in acting:
                raise EditError(
                    f"{one.edit} changes what a run begins with, but steps={self.steps} begin "
                    "later: let them begin with 0"
                )
            latents = fitting(one.edit, begun, latents)
        return latents

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        """The latents after a step of the scheduler."""
        for one in self._acting(now.progress):
            latents = fitting(one.edit, one.edit.stepped(latents, now), latents)
        return latents

    def decoded(self, pictures: Tensor, now: Moment) -> Tensor:
        """The pictures after the last step."""
        for one in self._acting(now.progress):
            pictures = fitting(one.edit, one.edit.decoded(pictures, now), pictures)
        return pictures


def _require_calls(
    outputs: Sequence[tuple[_Placed, Tensor, Tensor]],
    chosen: Tensor,
    one: _Placed,
    call: AttentionCall,
) -> None:
    """An edit sees what those before it made of a call: there is none if they made an output."""
    for before, others, _ in outputs:
        if (others & chosen).any():
            raise EditError(
                f"{before.edit} gives an output at {call.site.name}, so {one.edit} after it has no "
                "call of these heads to change: put it before, on other heads, or in an edit(...) "
                "inside this one"
            )
