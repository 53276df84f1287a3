"""What the images of one run are told: their prompts, and where the words of these are."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from attncontrol.errors import UnsupportedError, WordError
from attncontrol.prompts.tokens import Span, Subject, Token, merged
from attncontrol.prompts.words import (
    Groups,
    Word,
    Words,
    every_token,
    present,
    resolve,
    span_at,
    subjects,
)


@dataclass(frozen=True, eq=False)
class Text:
    """The text of the rows of one branch, one prompt per image, None where it is not known.

    Where the text encoders read different prompts it is these one after another, with " | " in
    between. ``read`` gives the token positions of an image as the denoiser gets them; each is read
    once. ``others`` are the texts of branches that read another one, such as "uncond".
    """

    prompts: tuple[str | None, ...]
    read: Callable[[int], tuple[Token, ...]]
    others: "Mapping[str, Text]" = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", functools.cache(self.read))
        object.__setattr__(self, "tokens", functools.cache(self.tokens))

    def of(self, branch: str) -> "Text":
        """That of a branch, such as the negative prompts of "uncond"."""
        if branch == "uncond" and branch not in self.others:
            return Text((None,) * len(self.prompts), self.read)
        return self.others.get(branch, self)

    def tokens(self, image: int) -> tuple[Token, ...]:
        """All positions of the text of an image. Raises WordError if its prompt is not known, and
        CallError if its text encoders read something else."""
        return merged(self._read(image))

    def known(self, image: int) -> tuple[Token, ...]:
        """All positions of the text of an image, none where they have no names."""
        try:
            return self.tokens(image)
        except (WordError, UnsupportedError):
            return ()

    def span(self, word: Word, image: int) -> Span:
        """The positions of a word or phrase in the prompt of an image. Raises WordError."""
        found = resolve(lambda _: self._read(image), self.prompts[image : image + 1], [word])
        return found[0][0]

    def spans(self, words: Words | None) -> tuple[tuple[Span, ...], ...]:
        """The positions of the words for every image; of every token by itself if None."""
        if words is None:
            return every_token([self.tokens(image) for image in range(len(self.prompts))])
        return resolve(self._read, self.prompts, words)

    def spans_of(
        self, branches: Sequence[str], words: Words | None
    ) -> list[tuple[tuple[Span, ...], ...]]:
        """The same for several branches, where a word need be in one text only; see ``present``."""
        texts = [self.of(branch) for branch in branches]
        if words is None:
            return [text.spans(None) for text in texts]
        return present([(text._read, text.prompts) for text in texts], self.prompts, words)

    def subjects(self, words: Groups | None) -> tuple[tuple[Subject, ...], ...]:
        """The subjects for every image: those named, or the nouns of its prompt with their
        modifiers."""
        if words is None:
            return tuple(self._parsed(image) for image in range(len(self.prompts)))
        if isinstance(words, tuple) and not words:
            return ((),) * len(self.prompts)
        return subjects(self._read, self.prompts, words)

    def _read(self, image: int) -> tuple[Token, ...]:
        if self.prompts[image] is None:
            raise WordError(
                "words cannot be located without the prompt: call the pipeline with prompt=..., "
                "make its prompt_embeds inside the block (of one text, no blend of several), or "
                "name positions of its text, such as words=[2, 5]"
            )
        return self.read(image)

    def _parsed(self, image: int) -> tuple[Subject, ...]:
        from attncontrol.prompts.syntax import subjects_of  # spaCy takes a second to load

        tokens, found, prompt = self._read(image), [], self.prompts[image] or ""
        for entity in subjects_of(prompt):
            words = (entity.noun, *entity.modifiers)
            noun, *modifiers = (
                span_at(tokens, word.text, word.start, word.end, prompt) for word in words
            )
            found.append(Subject(noun, tuple(modifiers)))
        return tuple(found)
