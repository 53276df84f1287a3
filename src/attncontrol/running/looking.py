"""What an objective looks at: which sites, and which text positions of the prompts of a run."""

import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attncontrol.attention.between import require_positions, text_mass
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Site
from attncontrol.errors import SiteError
from attncontrol.families.family import Family
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.objective import Objective, Sum, losses_of, terms_of
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Span, Subject, Token
from attncontrol.running.seen import Seen, among_cells, in_frames, of_cells


@dataclass(frozen=True)
class Gaze:
    """Where an objective looks: at the text, at attention among the cells of the picture, and at
    what attention puts out."""

    text: Mapping[str, Site]
    pictures: Mapping[str, Site]
    features: Mapping[str, Site]

    @classmethod
    def of(cls, objective: Objective, chosen: Mapping[str, Site], known: Iterable[Site]) -> "Gaze":
        """Raises SiteError if the chosen layers lack what the objective looks at."""
        beside: Mapping[str, Site] = {}
        if objective.self_attention or objective.features:
            beside = _beside(chosen.values(), known)
        return cls(
            chosen,
            beside if objective.self_attention else {},
            beside if objective.features else {},
        )

    @property
    def sites(self) -> dict[str, Site]:
        return {**self.text, **self.pictures, **self.features}

    def at(self, sites: Container[str]) -> "Gaze":
        """At those that are among ``sites``."""
        parts = self.text, self.pictures, self.features
        return Gaze(*({n: site for n, site in of.items() if n in sites} for of in parts))


@dataclass(frozen=True, eq=False)
class View:
    """An objective with the text positions that it looks at in one run.

    ``tokens[b]`` are those of the token axis of image b. ``keys[b]`` are their text positions, None
    where the axis has all of them. ``subjects[k][b]`` are those of the kth term. ``memory`` holds
    the mean maps of the frames of image b after the step before, ``latest`` those of this step; a
    picture is a video of one frame.
    """

    family: Family
    gaze: Gaze
    objective: Objective
    prompts: tuple[str | None, ...]
    tokens: tuple[tuple[Token, ...], ...]
    keys: tuple[tuple[int, ...], ...] | None
    subjects: tuple[tuple[tuple[Subject, ...], ...], ...]
    memory: dict[int, Tensor] = field(default_factory=dict)
    latest: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, family: Family, gaze: Gaze, objective: Objective, text: Text) -> "View":
        """Raises WordError."""
        images = range(len(text.prompts))
        subjects = tuple(text.subjects(term.words) for _, term in terms_of(objective))
        known = [text.known(i) for i in images]
        if family.contrast is not None:
            return cls(family, gaze, objective, text.prompts, tuple(known), None, subjects)
        tokens = tuple(
            _looked_at(known[i], {p for of in subjects for s in of[i] for p in s.positions})
            for i in images
        )
        keys = tuple(tuple(token.index for token in of_image) for of_image in tokens)
        return cls(family, gaze, objective, text.prompts, tokens, keys, subjects)

    def at(self, sites: Container[str]) -> "View | None":
        """Of the sites that are among these; None if there are none."""
        gaze = self.gaze.at(sites)
        return replace(self, gaze=gaze) if gaze.sites else None

    def frames(self, seen: Seen, images: Sequence[int], term: int = 0) -> tuple[StepMaps, ...]:
        """What a term of the objective sees of every frame of some images; one of a picture."""
        tokens = tuple(self.tokens[i] for i in images)
        whole = (self.family.contrast or slice(None),)
        maps = StepMaps(
            {},
            tuple(self._on_axis(self.subjects[term][i], i) for i in images),
            tokens,
            tuple(_encoders(of_image) if self.keys else whole for of_image in tokens),
            prompts=tuple(self.prompts[i] for i in images),
        )
        known = self.objective.remembers and all(i in self.memory for i in images)
        before = torch.stack([self.memory[i] for i in images]) if known else None
        return tuple(
            replace(
                maps,
                layers={name: seen.layers[name][:, :, k] for name in self.gaze.text},
                previous=None if before is None else before[:, k],
                pictures={name: of[:, k] for name, of in seen.pictures.items()},
                features={name: of[:, k] for name, of in seen.features.items()},
            )
            for k in range(seen.frames)
        )

    def losses(self, seen: Seen, images: Sequence[int]) -> Tensor:
        """[batch] losses of some images, of a video the mean over its frames. Raises LossError."""
        total: Tensor | float = 0.0
        for number, (weight, term) in enumerate(terms_of(self.objective)):
            frames = [losses_of(term, maps) for maps in self.frames(seen, images, number)]
            total = total + weight * torch.stack(frames).mean(0)
        if self.objective.remembers:
            means = [maps.mean().detach() for maps in self.frames(seen, images)]
            self.latest.update(zip(images, torch.stack(means, 1), strict=True))
        return torch.as_tensor(total)

    def end_step(self) -> None:
        self.memory.clear()
        self.memory.update(self.latest)

    def look(self, call: AttentionCall, now: Moment, seen: Seen) -> Tensor:
        """The output of one attention call; adds to ``seen`` what the objective looks at. The first
        time counts: gradient checkpointing runs a site again."""
        name, layout, output = call.site.name, now.layout, None
        if name in self.gaze.text:
            probabilities = self._probabilities(call, now)
            seen.layers.setdefault(name, probabilities)
            if self.keys is None and call.below is None:  # no second pass of the kernel
                output = probabilities.flatten(2, 4).to(call.value.dtype) @ call.value
        if name in self.gaze.pictures:
            seen.pictures.setdefault(name, among_cells(call, layout))
        output = call.run() if output is None else output
        if name in self.gaze.features:
            seen.features.setdefault(name, of_cells(output, layout))
        return output

    def complete(self, seen: Seen) -> bool:
        """Whether every site has been seen."""
        gaze = self.gaze
        left = [gaze.text.keys() - seen.layers, gaze.pictures.keys() - seen.pictures]
        return not any([*left, gaze.features.keys() - seen.features])

    def _probabilities(self, call: AttentionCall, now: Moment) -> Tensor:
        """[batch heads frame height width token] of one attention call."""
        grid = in_frames(now.layout.grid)
        if self.keys is None:
            named = [s.positions for of in self.subjects for i in now.images for s in of[i]]
            require_positions(named, call.key.shape[2])
            return call.probabilities().unflatten(2, grid)
        keys = [[(key,) for key in self.keys[i]] for i in now.images]
        return text_mass(call, replace(now.layout, grid=grid), keys)

    def _on_axis(self, subjects: tuple[Subject, ...], image: int) -> tuple[Subject, ...]:
        """Subjects whose positions are those of the token axis."""
        if self.keys is None:
            return subjects
        places = {key: place for place, key in enumerate(self.keys[image])}

        def moved(span: Span) -> Span:
            return Span(span.text, tuple(places[key] for key in span.positions))

        return tuple(Subject(moved(s.noun), tuple(map(moved, s.modifiers))) for s in subjects)


def without_idle(objective: Objective, text: Text) -> Objective | None:
    """An objective without the terms that have nothing to do for any image, None if none is left; a
    warning for every prompt of such an image. Raises WordError."""
    kept, prompts = [], [str(prompt) for prompt in text.prompts]
    for weight, term in terms_of(objective):
        acting = [term.acts(of_image) for of_image in text.subjects(term.words)]
        for prompt in dict.fromkeys(p for p, acts in zip(prompts, acting, strict=True) if not acts):
            warnings.warn(
                f"{type(term).__name__} has nothing to do for the prompt {prompt!r}, whose "
                "subjects lack what it compares: it does not change that picture",
                stacklevel=2,
            )
        kept += [(weight, term)] if any(acting) else []
    if len(kept) == len(terms_of(objective)):
        return objective
    return Sum(tuple(kept)) if kept else None


def _beside(chosen: Iterable[Site], known: Iterable[Site]) -> dict[str, Site]:
    """Where cells of the picture look at each other beside the chosen sites: in the same call of
    joint attention, and in the self-attention of the block whose cross-attention was chosen."""
    sites = tuple(chosen)
    joint = {site.name: site for site in sites if site.kind == "joint"}
    blocks = {site.name.rpartition(".")[0] for site in sites if site.kind == "cross"}
    selves = [site for site in known if site.kind == "self"]
    beside = {site.name: site for site in selves if site.name.rpartition(".")[0] in blocks}
    if not joint and not beside:
        raise SiteError(
            "the chosen layers have no self-attention with a map, which this objective looks at"
        )
    return joint | beside


def _looked_at(known: tuple[Token, ...], named: set[int]) -> tuple[Token, ...]:
    """The tokens of a prompt, and whatever else is named."""
    tokens = {t.index: t for t in known if not t.special or t.index in named}
    others = {p: Token(p, 0, "", 0, 0, special=False) for p in named - tokens.keys()}
    return tuple(token for _, token in sorted((tokens | others).items()))


def _encoders(tokens: tuple[Token, ...]) -> tuple[slice, ...]:
    """Where the tokens of each text encoder are."""
    names = [token.encoder for token in tokens]
    starts = {name: names.index(name) for name in dict.fromkeys(names)}
    return tuple(slice(start, start + names.count(name)) for name, start in starts.items())
