"""Embeddings of nouns, learned step by step: what ``DynamicPrompt`` does on its two ways back."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attncontrol.attention.between import sites_with
from attncontrol.inversion._driven import Way
from attncontrol.inversion._leakage import background_of, leakage
from attncontrol.inversion._method import Back, Learned
from attncontrol.inversion._schedule import Look, Looks, Schedule
from attncontrol.inversion._words import embedded, encoded, require_plain_texts, with_texts
from attncontrol.inversion.negative_prompt import require_branches
from attncontrol.inversion.null_text import NullText, Tuning
from attncontrol.losses.self_cross import SelfCross
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Subject
from attncontrol.running.backward import differentiable
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.looking import Gaze, View
from attncontrol.running.seeing import seeing
from attncontrol.running.session import Session

_WEIGHTS = 1.0, 0.05, 0.05
_FIRST, _FALL = (0.3, 0.9, 0.7), (25, 25, 50)


def along(path: Tensor) -> Way:
    """Looks at latents [picture step + 1 ...] that are known."""

    def way(_: Tensor, schedule: Schedule) -> Looks:
        for place, update in enumerate(schedule.updates):
            yield Look(path[:, place], schedule.scale(place), update.timestep)
        return list(path.unbind(1))

    return way


@dataclass(eq=False)
class Watching:
    """Sums of maps over the steps: of words, and among cells."""

    words: Sequence[str] | None
    back: Back
    view: View | None = None
    maps: Tensor | float = 0.0
    cells: Tensor | float = 0.0
    subjects: tuple[tuple[Subject, ...], ...] = ()

    def fed(self, call: DenoiserCall) -> DenoiserCall:
        if self.view is None:
            self.view = _view(self.words, self.back.run, call.text)
        with torch.no_grad(), seeing(self.back.run, self.view, call.of("cond")) as seen:
            (maps,) = self.view.frames(seen, call.images)
            self.maps, self.cells = self.maps + maps.mean(), self.cells + maps.picture()
            self.subjects = maps.subjects
        return call

    def backgrounds(self) -> list[Tensor]:
        """Of every picture [height width]."""
        steps = self.back.facts.steps
        means, cells = torch.as_tensor(self.maps) / steps, torch.as_tensor(self.cells) / steps
        return [
            background_of(of_words, of_cells, [subject.noun for subject in subjects])
            for of_words, of_cells, subjects in zip(means, cells, self.subjects, strict=True)
        ]


def _view(words: Sequence[str] | None, run: Session, text: Text) -> View:
    """Of the layers that losses look at, and the attention among cells beside them."""
    known, objective = tuple(run.sites.values()), SelfCross(words)
    assert not isinstance(run.family.steering, str)  # of Stable Diffusion
    where, _ = run.family.steering(known)
    gaze = Gaze.of(objective, sites_with(known, "image->text", where), known)
    return View.of(run.family, gaze, objective, text)


@dataclass(eq=False)
class Learning:
    """``nouns`` are the embeddings [picture token channel] of the steps so far, ``places`` those of
    every picture's tokens."""

    rounds: int
    null: Tuning
    watched: Watching
    nouns: list[Tensor]
    places: list[list[int]] = field(default_factory=list)
    backgrounds: list[Tensor] = field(default_factory=list)
    view: View | None = None

    @classmethod
    def begun(
        cls,
        rounds: int,
        method: NullText,
        watched: Watching,
        keep: Callable[[Learned], None],
    ) -> "Learning":
        back = watched.back
        nouns = back.learned.nouns if back.learned is not None else None
        null = Tuning.begun(method, back, lambda _: keep(one.learned))
        one = cls(rounds, null, watched, [] if nouns is None else list(nouns.unbind(1)))
        return one

    @property
    def learned(self) -> Learned:
        width = max(map(len, self.places))
        places = [[*own, *[-1] * (width - len(own))] for own in self.places]
        embeddings, nouns = torch.stack(self.null.done, 1), torch.stack(self.nouns, 1)
        return Learned(embeddings, nouns, torch.tensor(places, dtype=torch.int64))

    def fed(self, call: DenoiserCall) -> DenoiserCall:
        require_branches(call, self.null.method)
        if call.is_first:
            self._begin(call)
        index = call.step.index
        if index == len(self.nouns):
            with torch.enable_grad():
                found = [self._optimised(call, picture) for picture in call.images]
            self.nouns.append(pad_sequence(found, batch_first=True))
        with torch.no_grad():
            each = zip(call.images, self.nouns[index], strict=True)
            texts = [self._text(call, picture, vectors) for picture, vectors in each]
        return self.null.fed(with_texts(call, torch.cat(texts)))

    def _begin(self, call: DenoiserCall) -> None:
        view = _view(self.watched.words, self.watched.back.run, call.text)
        self.view = replace(view, gaze=replace(view.gaze, pictures={}))
        named = call.text.subjects(self.watched.words)
        self.places = [[p for subject in of for p in subject.noun.positions] for of in named]
        self.backgrounds = self.watched.backgrounds()
        with torch.no_grad():
            texts = [self._text(call, picture, None) for picture in call.images]
        require_plain_texts(call, torch.cat(texts))

    def _text(self, call: DenoiserCall, picture: int, vectors: Tensor | None) -> Tensor:
        """[1 position channel]; those of the text encoder if None."""
        tokens, pipe = call.text.tokens(picture), self.watched.back.run.pipe
        places = self.places[picture]
        if vectors is None:
            vectors = embedded(pipe, tokens, places)
        return encoded(pipe, tokens, places, vectors[: len(places)])

    def _optimised(self, call: DenoiserCall, picture: int) -> Tensor:
        """[token channel]."""
        back, index, places = self.watched.back, call.step.index, self.places[picture]
        start = embedded(back.run.pipe, call.text.tokens(picture), places)
        if index:
            start = self.nouns[-1][picture, : len(places)]
        vectors = start.to(back.latents).clone().requires_grad_()
        adam = torch.optim.AdamW([vectors], lr=1e-3)
        falls = [math.exp(-index / steps) for steps in _FALL]
        limits = [first * fall for first, fall in zip(_FIRST, falls, strict=True)]
        for _ in range(self.rounds):
            losses, gradient = self._losses(call, picture, vectors)
            if all(loss < limit for loss, limit in zip(losses, limits, strict=True)):
                break
            vectors.grad = gradient
            adam.step()
        return vectors.detach()

    def _losses(
        self, call: DenoiserCall, picture: int, vectors: Tensor
    ) -> tuple[list[float], Tensor]:
        """And the gradient of their weighted sum."""
        run, view, background = self.watched.back.run, self.view, self.backgrounds[picture]
        assert view is not None  # since the first call
        with differentiable(run.denoiser, run.pipe.text_encoder):
            text = self._text(call, picture, vectors)
            with seeing(run, view, with_texts(call.of("cond", [picture]), text)) as seen:
                (maps,) = view.frames(seen, [picture])
                nouns = [subject.noun for subject in maps.subjects[0]]
                losses = leakage(maps.mean()[0], nouns, maps.contrast[0], background)
                weights = torch.tensor(_WEIGHTS).to(vectors)
                total = (weights * torch.stack(losses)).sum()
                (gradient,) = torch.autograd.grad(total, vectors)
        return torch.stack(losses).tolist(), gradient
