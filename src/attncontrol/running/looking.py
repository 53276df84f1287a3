"""What an objective looks at: which sites, and which text positions of the prompts of a run."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attncontrol.attention.between import require_positions, text_mass
from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Site
from attncontrol.errors import SiteError
from attncontrol.families.family import Family
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.objective import Objective, Sum, losses_of, terms_of
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Span, Subject, Token


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
            beside = _among_cells(chosen.values(), known)
        return cls(
            chosen,
            beside if objective.self_attention else {},
            beside if objective.features else {},
        )

    @property
    def sites(self) -> dict[str, Site]:
        return {**self.text, **self.pictures, **self.features}


@dataclass(frozen=True, eq=False)
class View:
    """An objective with the text positions that it looks at in one run.

    ``tokens[b]`` are those of the token axis of image b. ``keys[b]`` are their text positions, None
    where the axis has all of them. ``subjects[k][b]`` are those of the kth term. ``memory`` holds
    the mean map of image b after the step before, ``latest`` that of this step.
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

    def maps(self, seen: "Seen", images: Sequence[int], term: int = 0) -> StepMaps:
        """What a term of the objective sees of some images."""
        tokens = tuple(self.tokens[i] for i in images)
        whole = (self.family.contrast or slice(None),)
        maps = StepMaps(
            {name: seen.layers[name] for name in self.gaze.text},
            tuple(self._on_axis(self.subjects[term][i], i) for i in images),
            tokens,
            tuple(_encoders(of_image) if self.keys else whole for of_image in tokens),
            pictures=seen.pictures,
            features=seen.features,
            prompts=tuple(self.prompts[i] for i in images),
        )
        if self.objective.remembers and all(i in self.memory for i in images):
            maps = replace(maps, previous=torch.stack([self.memory[i] for i in images]))
        return maps

    def losses(self, seen: "Seen", images: Sequence[int]) -> Tensor:
        """[batch] losses of some images. Raises LossError."""
        total: Tensor | float = 0.0
        for number, (weight, term) in enumerate(terms_of(self.objective)):
            maps = self.maps(seen, images, number)
            total = total + weight * losses_of(term, maps)
        if self.objective.remembers:
            means = self.maps(seen, images).mean().detach()
            self.latest.update(zip(images, means, strict=True))
        return torch.as_tensor(total)

    def end_step(self) -> None:
        self.memory.clear()
        self.memory.update(self.latest)

    def look(self, call: AttentionCall, now: Moment, seen: "Seen") -> Tensor:
        """The output of one attention call; adds to ``seen`` what the objective looks at. The first
        time counts: gradient checkpointing runs a site again."""
        name, layout, output = call.site.name, now.layout, None
        if name in self.gaze.text:
            probabilities = self._probabilities(call, now)
            seen.layers.setdefault(name, probabilities)
            if self.keys is None and call.below is None:  # no second pass of the kernel
                output = probabilities.flatten(2, 3).to(call.value.dtype) @ call.value
        if name in self.gaze.pictures:
            seen.pictures.setdefault(name, _picture(call, layout))
        output = call.run() if output is None else output
        if name in self.gaze.features:
            rows = zip(output.transpose(1, 2).flatten(2), _images(layout, call), strict=True)
            features = torch.stack([of_row[image] for of_row, image in rows])
            seen.features.setdefault(name, features.unflatten(1, layout.grid))
        return output

    def complete(self, seen: "Seen") -> bool:
        """Whether every site has been seen."""
        gaze = self.gaze
        left = [gaze.text.keys() - seen.layers, gaze.pictures.keys() - seen.pictures]
        return not any([*left, gaze.features.keys() - seen.features])

    def _probabilities(self, call: AttentionCall, now: Moment) -> Tensor:
        """[batch heads height width token] of one attention call."""
        if self.keys is None:
            named = [s.positions for of in self.subjects for i in now.images for s in of[i]]
            require_positions(named, call.key.shape[2])
            return call.probabilities().unflatten(2, now.layout.grid)
        return text_mass(call, now.layout, [[(key,) for key in self.keys[i]] for i in now.images])

    def _on_axis(self, subjects: tuple[Subject, ...], image: int) -> tuple[Subject, ...]:
        """Subjects whose positions are those of the token axis."""
        if self.keys is None:
            return subjects
        places = {key: place for place, key in enumerate(self.keys[image])}

        def moved(span: Span) -> Span:
            return Span(span.text, tuple(places[key] for key in span.positions))

        return tuple(Subject(moved(s.noun), tuple(map(moved, s.modifiers))) for s in subjects)


@dataclass(eq=False)
class Seen:
    """What one pass of the denoiser has shown of the sites of a view."""

    layers: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


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


def _picture(call: AttentionCall, layout: Layout) -> Tensor:
    """[batch height width key_height key_width] of one attention call: mean over heads, from the
    picture to the picture."""
    mean = call.probabilities().mean(1)
    rows = zip(mean, _images(layout, call), strict=True)
    among = torch.stack([of_row[image][:, image] for of_row, image in rows])
    among = among / among.sum(2, keepdim=True)
    return among.unflatten(2, layout.grid).unflatten(1, layout.grid)


def _images(layout: Layout, call: AttentionCall) -> tuple[slice, ...]:
    """The positions of the picture, for every row of the batch."""
    image = layout.image
    return image if isinstance(image, tuple) else (image,) * len(call.query)


def _among_cells(chosen: Iterable[Site], known: Iterable[Site]) -> dict[str, Site]:
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
