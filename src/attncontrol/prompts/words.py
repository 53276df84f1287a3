"""Words and phrases to token positions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import index
from typing import Any

from attncontrol.errors import WordError
from attncontrol.prompts.spelling import places, words_of
from attncontrol.prompts.tokens import Span, Subject, Token
from attncontrol.prompts.unread import last_character, reads_quotations, why_unread

Word = str | int | Span
"""A word or phrase of the prompt, a position of its text sequence, or positions with a name."""
Words = Sequence[Word] | Mapping[str, Sequence[Word]]
Group = Word | Sequence[Word]
Groups = Sequence[Group] | Mapping[str, Sequence[Group]]
"""Subjects: a noun, or modifiers and last their noun; for all prompts or for each."""


def find(tokens: Sequence[Token], prompt: str, phrase: Word) -> Span:
    """Token positions of ``phrase`` in ``prompt``, whose text sequence is ``tokens``.

    Whole words, whatever their case and normal form; see ``spelling.places``. All occurrences count
    together; ``"cat#2"`` names the second one. A word of several tokens has several positions, and
    so has a word that several encoders read. A number is a position, a Span stays as it is. Raises
    WordError if the phrase is not in the prompt, has no such occurrence, is (even partly) beyond
    the text limit of every encoder, is changed by the pipeline before they read it, or cannot be
    told from another word.
    """
    if not isinstance(phrase, str):
        return _at(tokens, phrase)
    wanted, _, number = phrase.partition("#")
    wanted = wanted.strip()
    if not wanted or (number and not (number.isdecimal() and int(number))):
        raise WordError(
            f"{phrase!r} is not a word; "
            "write 'cat', 'red car' or, for the second occurrence, 'cat#2'"
        )
    found = places(prompt, wanted)
    if not found:
        words = ", ".join(words_of(prompt)) or "none"
        raise WordError(f"{wanted!r} is not in the prompt {prompt!r}; its words are: {words}")
    if number and int(number) > len(found):
        raise WordError(
            f"{phrase!r}: the prompt {prompt!r} has {len(found)} occurrence(s) of {wanted!r}"
        )
    chosen = found[int(number) - 1 : int(number)] if number else found
    read = 0 if reads_quotations(tokens) else last_character(tokens)
    spans = {  # of all, since one that is changed could be taken for another
        place: span_at(tokens, phrase, *place, prompt)
        for place in found
        if place in chosen or place[1] <= read
    }
    positions = dict.fromkeys(p for place in chosen for p in spans[place].positions)
    _require_alone(tokens, prompt, phrase, found, positions)
    return Span(phrase, tuple(positions))


def _at(tokens: Sequence[Token], given: Any) -> Span:
    """Positions that the user knows."""
    span = given if isinstance(given, Span) else Span(str(given), (index(given),))
    last = max((token.index for token in tokens), default=None)
    wrong = [p for p in span.positions if p < 0 or (last is not None and p > last)]
    if wrong or not span.positions:
        raise WordError(
            f"positions {list(span.positions)}: the text has the positions 0 to {last}"
            if last is not None
            else f"positions {list(span.positions)}: positions of the text are 0, 1, 2 ..."
        )
    return span


def span_at(tokens: Sequence[Token], phrase: str, start: int, end: int, prompt: str = "") -> Span:
    """The positions of a word by its characters. Raises WordError if no encoder reads all of it."""
    letters = {i for i in range(start, end) if i >= len(prompt) or prompt[i].isalnum()}
    positions: list[int] = []
    for encoder in dict.fromkeys(token.encoder for token in tokens):
        inside = [t for t in tokens if t.encoder == encoder and t.start < end and start < t.end]
        if inside and letters <= {i for t in inside for i in range(t.start, t.end)}:
            positions += [token.index for token in inside]
    if not positions:
        raise WordError(why_unread(tokens, phrase, (start, end), prompt))
    return Span(phrase, tuple(positions))


def _require_alone(
    tokens: Sequence[Token],
    prompt: str,
    phrase: str,
    found: Sequence[tuple[int, int]],
    positions: Mapping[int, Any],
) -> None:
    """Raises WordError where a position belongs to the letters of another word, too."""
    own = {i for start, end in found for i in range(start, end)}
    for token in tokens:
        if token.index not in positions or token.special:
            continue
        others = [i for i in range(token.start, token.end) if i not in own and prompt[i].isalnum()]
        if others or token.start == token.end:
            whole = prompt[token.start : token.end].strip() or token.text
            raise WordError(
                f"{phrase!r} cannot be told from {whole!r}, which the model reads at the same "
                f"position {token.index}; name the whole, or the position: words=[{token.index}]"
            )


def every_token(tokens: Sequence[Sequence[Token]]) -> tuple[tuple[Span, ...], ...]:
    """Every token of every text sequence by itself."""
    return tuple(
        tuple(Span(token.text, (token.index,)) for token in sequence) for sequence in tokens
    )


Read = Callable[[int], Sequence[Token]]
"""The text sequence of an image. Raises WordError if its prompt is not known."""


def subjects(
    read: Read, prompts: Sequence[str | None], groups: Groups
) -> tuple[tuple[Subject, ...], ...]:
    """The subjects of every image; see ``resolve``."""
    named, found = _by_prompt(prompts, groups), []
    for image, prompt in enumerate(prompts):
        phrases = [
            [group] if _is_word(group) else listed(group) for group in listed(named[str(prompt)])
        ]
        words = [require_word(word) for phrase in phrases for word in phrase]
        spans = [_located(read, prompts, image, word) for word in words]
        found.append(_grouped(spans, list(map(len, phrases))))
    return tuple(found)


def _grouped(spans: Sequence[Span], sizes: Sequence[int]) -> tuple[Subject, ...]:
    """Spans one after the other, the last of each group its noun."""
    rest = iter(spans)
    groups = [list(islice(rest, size)) for size in sizes]
    return tuple(Subject(noun, tuple(modifiers)) for *modifiers, noun in groups)


def resolve(
    read: Read, prompts: Sequence[str | None], words: Words
) -> tuple[tuple[Span, ...], ...]:
    """Spans of the words for every image. ``words`` holds for all prompts, or maps each prompt to
    its own words. Positions need no prompt."""
    return tuple(
        tuple(_located(read, prompts, image, word) for word in of_image)
        for image, of_image in enumerate(wanted(prompts, words))
    )


def wanted(prompts: Sequence[str | None], words: Words) -> list[list[Word]]:
    """The words of every image. Raises WordError for what is none."""
    named = _by_prompt(prompts, words)
    return [[require_word(word) for word in listed(named[str(prompt)])] for prompt in prompts]


def _located(read: Read, prompts: Sequence[str | None], image: int, word: Word) -> Span:
    if not isinstance(word, str):
        return find((), "", word)
    return find(read(image), prompts[image] or "", word)


def present(
    sources: Sequence[tuple[Read, Sequence[str | None]]],
    prompts: Sequence[str | None],
    words: Words,
) -> list[tuple[tuple[Span, ...], ...]]:
    """As ``resolve``, for several ``sources``, such as the texts of both branches. A word need be
    in one of the texts only, of all images if ``words`` holds for all; it has no positions in the
    others."""
    of_images, found = wanted(prompts, words), []
    for read, texts in sources:
        spans = []
        for image, of_image in enumerate(of_images):
            others = range(len(texts)) if not isinstance(words, Mapping) else (image,)
            elsewhere = [other[i] for _, other in sources for i in others]
            spans.append(
                tuple(
                    Span(str(word), ())
                    if _is_absent(texts[image], word)
                    and not all(_is_absent(other, word) for other in elsewhere if other is not None)
                    else _located(read, texts, image, word)
                    for word in of_image
                )
            )
        found.append(tuple(spans))
    return found


def _is_absent(prompt: str | None, word: Word) -> bool:
    """Whether a prompt that is known does not have this occurrence of a word."""
    if prompt is None or not isinstance(word, str):
        return False
    phrase, _, number = word.partition("#")
    least = int(number) if number.isdecimal() else 1
    return bool(phrase.strip()) and len(places(prompt, phrase.strip())) < least


def _by_prompt(prompts: Sequence[str | None], words: Any) -> dict[str, Any]:
    """Prompt -> what is given for it. Raises WordError for a prompt without words."""
    if not isinstance(words, Mapping):
        return {str(prompt): words for prompt in prompts}
    for prompt in prompts:
        if prompt is None:
            raise WordError("words are given by prompt: call the pipeline with prompt=... too")
        if prompt not in words:
            raise WordError(
                f"no words are given for the prompt {prompt!r}; "
                f"words are given for: {', '.join(map(repr, words))}"
            )
    return {str(prompt): given for prompt, given in words.items()}


def listed(words: Any) -> list[Any]:
    """Raises WordError for anything but a list of words, or an empty one."""
    wrong = _is_word(words) or not isinstance(words, Iterable) or isinstance(words, bytes | Mapping)
    each = [] if wrong else list(words)
    if not each:
        raise WordError(
            "words must be a non-empty list such as ['cat', 'frog'], or of positions, [2, 5]; "
            f"a subject is a noun, or modifiers and last their noun, ['red', 'car']; not {words!r}"
        )
    return each


def require_word(word: Any) -> Word:
    """Raises WordError for anything but a word, a position or a Span."""
    if not _is_word(word):
        raise WordError(
            f"{word!r} is not a word; write 'cat' or 'red car', a position such as 5, or "
            "Span('cat', (5, 6))"
        )
    return word if isinstance(word, str | Span) else index(word)


def _is_word(given: Any) -> bool:
    """numpy's numbers are positions, too; True and False are none."""
    number = hasattr(given, "__index__") and not getattr(given, "shape", ())
    return isinstance(given, str | Span) or (number and not isinstance(given, bool))
