"""What the images of one run are told: their prompts, and where the words of these are."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from attncontrol.errors import WordError
from attncontrol.prompts.tokens import Span, Subject, Token
from attncontrol.prompts.words import Groups, Words, every_token, find, resolve, span_at, subjects


@dataclass(frozen=True, eq=False)
class Text:
    """The text of one run, one prompt per image, None where the pipeline was called without one.

    ``read`` gives the token positions of a prompt as the denoiser gets them; each is read once.
    """

    prompts: tuple[str | None, ...]
    read: Callable[[str], tuple[Token, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", functools.cache(self.read))

    def tokens(self, image: int) -> tuple[Token, ...]:
        """All positions of the text of an image. Raises WordError if its prompt is not known."""
        prompt = self.prompts[image]
        if prompt is None:
            raise WordError(
                "text positions have no names without the prompt; call the pipeline with it, not "
                "with prompt_embeds"
            )
        return self.read(prompt)

    def span(self, word: str, image: int) -> Span:
        """The positions of a word or phrase in the prompt of an image. Raises WordError."""
        return find(self.tokens(image), self.prompts[image] or "", word)

    def spans(self, words: Words | None) -> tuple[tuple[Span, ...], ...]:
        """The positions of the words for every image; of every token by itself if None."""
        if words is None:
            return every_token([self.tokens(image) for image in range(len(self.prompts))])
        return resolve(self.read, self.prompts, words)

    def subjects(self, words: Groups | None) -> tuple[tuple[Subject, ...], ...]:
        """The subjects for every image: those named, or the nouns of its prompt with their
        modifiers."""
        if words is None:
            return tuple(self._parsed(image) for image in range(len(self.prompts)))
        return subjects(self.read, self.prompts, words) if words else ((),) * len(self.prompts)

    def _parsed(self, image: int) -> tuple[Subject, ...]:
        from attncontrol.prompts.syntax import subjects_of  # spaCy takes a second to load

        tokens, found = self.tokens(image), []
        for entity in subjects_of(self.prompts[image] or ""):
            words = (entity.noun, *entity.modifiers)
            noun, *modifiers = (span_at(tokens, word.text, word.start, word.end) for word in words)
            found.append(Subject(noun, tuple(modifiers)))
        return tuple(found)
