"""What an objective looks at: which sites, and which text positions of the current prompts."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attncontrol.attention.between import text_mass
from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import UnsupportedError
from attncontrol.families.family import Family
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.objective import Objective, Sum, terms_of
from attncontrol.prompts.tokens import Span, Subject, Token
from attncontrol.prompts.words import at, subjects
from attncontrol.running.calls import DenoiserCall


@dataclass
class View:
    """What the objective looks at: where, and which text positions of the current prompts.

    ``keys[b]`` are the text positions on the token axis of image b, None for all of them.
    ``subjects[k]`` are those of the kth term of the objective. ``previous[b]`` is the mean map of
    image b after the step before, for objectives that remember it.
    """

    denoiser: nn.Module
    family: Family
    sites: dict[str, Site]
    objective: Objective | Sum
    prompts: tuple[str | None, ...] = ()
    tokens: tuple[tuple[Token, ...], ...] = ()
    subjects: tuple[tuple[tuple[Subject, ...], ...], ...] = ()
    previous: dict[int, Tensor] = field(default_factory=dict)
    latest: dict[int, Tensor] = field(default_factory=dict)
    keys: tuple[tuple[int, ...], ...] | None = None
    pictures: dict[str, Site] = field(default_factory=dict)
    features: dict[str, Site] = field(default_factory=dict)

    def read(self, pipe: Any, call: DenoiserCall) -> None:
        @functools.cache
        def tokens_of(prompt: str) -> tuple[Token, ...]:
            return self.family.tokens(pipe, prompt, call.step.encoding)

        self.prompts = prompts = call.step.prompts
        self.subjects = tuple(
            _subjects(tokens_of, term, prompts) for _, term in terms_of(self.objective)
        )
        self.previous, self.latest = {}, {}
        self.tokens = tuple(() if prompt is None else tokens_of(prompt) for prompt in prompts)
        if self.family.contrast is None:
            self.tokens = tuple(
                tuple(token for token in of if not token.special) for of in self.tokens
            )
            self.keys = tuple(tuple(token.index for token in of) for of in self.tokens)

    def losses(self, seen: "Seen", images: list[int]) -> Tensor:
        """[batch] losses of some images."""
        ordered = {name: seen.layers[name] for name in self.sites}
        tokens, prompts = (
            tuple(self.tokens[i] for i in images),
            tuple(self.prompts[i] for i in images),
        )
        maps = StepMaps(
            ordered, (), tokens, (), pictures=seen.pictures, features=seen.features, prompts=prompts
        )
        contrast = tuple(
            _encoders(of) if self.keys else (self.family.contrast or slice(None),)
            for of in maps.tokens
        )
        if any(getattr(term, "remembers", False) for _, term in terms_of(self.objective)):
            if all(i in self.previous for i in images):
                maps = replace(maps, previous=torch.stack([self.previous[i] for i in images]))
            self.latest |= dict(zip(images, maps.mean().detach(), strict=True))
        total: Tensor | float = 0.0
        for (weight, term), of_images in zip(terms_of(self.objective), self.subjects, strict=True):
            chosen = tuple(of_images[i] for i in images)
            if self.keys is not None:
                chosen = tuple(
                    _moved(of, self.keys[i]) for of, i in zip(chosen, images, strict=True)
                )
            total = total + weight * term(replace(maps, subjects=chosen, contrast=contrast))
        return torch.as_tensor(total)

    def end_step(self) -> None:
        self.previous = dict(self.latest)

    def probabilities(self, call: AttentionCall, layout: Layout, images: list[int]) -> Tensor:
        """[batch heads height width token] of one attention call."""
        if self.keys is None:
            return call.probabilities().unflatten(2, layout.grid)
        return text_mass(call, layout, [[(key,) for key in self.keys[i]] for i in images])

    def picture(self, call: AttentionCall, layout: Layout) -> Tensor:
        """[batch height width key_height key_width] of one attention call: mean over heads, from
        the picture to the picture."""
        mean = call.probabilities().mean(1)
        among = torch.stack(
            [
                of_row[image][:, image]
                for of_row, image in zip(mean, _images(layout, call), strict=True)
            ]
        )
        return (
            (among / among.sum(2, keepdim=True)).unflatten(2, layout.grid).unflatten(1, layout.grid)
        )

    def look(self, call: AttentionCall, layout: Layout, images: list[int], seen: "Seen") -> Tensor:
        """The output of one attention call; adds to ``seen`` what the objective looks at. The first
        time counts: gradient checkpointing runs a site again."""
        name = call.site.name
        probabilities = self.probabilities(call, layout, images) if name in self.sites else None
        picture = self.picture(call, layout) if name in self.pictures else None
        if probabilities is not None and self.keys is None:
            output = (
                probabilities.flatten(2, 3).to(call.value.dtype) @ call.value
            )  # no second pass of the kernel
        else:
            output = call.run()
        if probabilities is not None:
            seen.layers.setdefault(name, probabilities)
        if picture is not None:
            seen.pictures.setdefault(name, picture)
        if name in self.features:
            rows = zip(output.transpose(1, 2).flatten(2), _images(layout, call), strict=True)
            seen.features.setdefault(
                name,
                torch.stack([of_row[image] for of_row, image in rows]).unflatten(1, layout.grid),
            )
        return output

    def complete(self, seen: "Seen") -> bool:
        """Whether every site has been seen."""
        return not (
            self.sites.keys() - seen.layers
            or self.pictures.keys() - seen.pictures
            or self.features.keys() - seen.features
        )


@dataclass
class Seen:
    """What one pass of the denoiser has shown of the sites of a view."""

    layers: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


def _images(layout: Layout, call: AttentionCall) -> tuple[slice, ...]:
    """The positions of the picture, for every row of the batch."""
    return layout.image if isinstance(layout.image, tuple) else (layout.image,) * len(call.query)


def sites_among_cells(
    objective: Objective | Sum, wanted: str, chosen: Iterable[Site], known: Iterable[Site]
) -> dict[str, Site]:
    """Where an objective with the attribute ``wanted`` looks at attention among the cells of the
    picture: beside the chosen sites.

    That is in the same call of joint attention, and in the self-attention of the block whose
    cross-attention was chosen.
    """
    if not any(getattr(term, wanted, False) for _, term in terms_of(objective)):
        return {}
    joint = {site.name: site for site in chosen if site.kind == "joint"}
    blocks = {site.name.rpartition(".")[0] for site in chosen if site.kind == "cross"}
    beside = {
        site.name: site
        for site in known
        if site.kind == "self" and site.name.rpartition(".")[0] in blocks
    }
    if not joint and not beside:
        raise UnsupportedError(
            "the chosen layers have no self-attention with a map, which this objective looks at"
        )
    return joint | beside


def _encoders(tokens: tuple[Token, ...]) -> tuple[slice, ...]:
    """Where the tokens of each text encoder are."""
    names = [token.encoder for token in tokens]
    return tuple(
        slice(names.index(name), names.index(name) + names.count(name))
        for name in dict.fromkeys(names)
    )


def _moved(subjects: tuple[Subject, ...], keys: tuple[int, ...]) -> tuple[Subject, ...]:
    """Subjects whose positions count through ``keys``."""

    def moved(span: Span) -> Span:
        return Span(span.text, tuple(map(keys.index, span.positions)))

    return tuple(
        Subject(moved(subject.noun), tuple(map(moved, subject.modifiers))) for subject in subjects
    )


def _subjects(
    tokens_of: Callable[[str], tuple[Token, ...]],
    objective: Objective,
    prompts: tuple[str | None, ...],
) -> tuple[tuple[Subject, ...], ...]:
    if not hasattr(objective, "words"):
        return ((),) * len(prompts)
    if objective.words is not None:
        return subjects(tokens_of, prompts, objective.words)
    from attncontrol.prompts.syntax import subjects_of

    if None in prompts:
        subjects(tokens_of, prompts, ())  # raises: words need the prompt
    read: dict[str, tuple[Subject, ...]] = {}
    for prompt in filter(None, prompts):
        tokens, found = tokens_of(prompt), []
        for entity in subjects_of(prompt):
            noun, *modifiers = (
                at(tokens, word.text, word.start, word.end)
                for word in (entity.noun, *entity.modifiers)
            )
            found.append(Subject(noun, tuple(modifiers)))
        read[prompt] = tuple(found)
    return tuple(read[prompt] for prompt in prompts if prompt is not None)
