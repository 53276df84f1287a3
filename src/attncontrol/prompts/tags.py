"""Tags of prompts: what is said of the picture and not of what it shows ("8k, highly detailed,
trending on artstation, by greg rutkowski"), found by their wording, before the prompt is parsed.

A phrase that is always a tag is left out wherever it stands. A part between commas is left out
whole where nothing but such words is in it; words that may name a thing as well ("lens", "art")
make a part a tag only if it is not the first and has no article.
"""

import re
from dataclasses import dataclass

from attncontrol.prompts.lexicon import ING_NOUNS
from attncontrol.prompts.tag_words import (
    ALWAYS,
    ARTISTS,
    CREDITS,
    FILLERS,
    HEADS,
    MEDIA,
    NO_NAMES,
    SMALL,
    TAG_WORDS,
)


@dataclass(frozen=True)
class LeftOut:
    """Characters ``start:end`` of the prompt that name no subject, and why."""

    text: str
    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class Kept:
    """What is left of a prompt; ``places`` are the positions of its characters in the prompt."""

    text: str
    places: tuple[int, ...]
    left_out: tuple[LeftOut, ...]


Range = tuple[int, int]

_PART = re.compile(r"(?:[^,;|\n:.]|:(?!\s)|\.(?=\S))+")
_ARTICLES = {"a", "an", "the"}
_BREAK = r"(?=\s*(?:$|[,.;:|()\n]|\b(?:with|on|in|at|under|near|and a|and the|wearing|holding)\b))"
_ALWAYS = [(re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in ALWAYS]
_STYLE = re.compile(rf"\b(?:the )?style of .+?{_BREAK}", re.IGNORECASE)
_NAME = r"(?:[\w'-]|\.(?=\w))+"
_BY = re.compile(rf"\b((?:{'|'.join(CREDITS)}) )?(by|inspired by) ({_NAME}(?: {_NAME})*)", re.I)
_WEIGHT = re.compile(r"[()\[\]{}]+|(?<=[\w\])]):{1,2}-?\d+(?:\.\d+)?(?=[\s,)\]]|$)|(?<=\w)::")


def without_tags(prompt: str) -> Kept:
    """The prompt without its tags and the marks of weights, which are left where nothing is."""
    found = [
        (match.span(), reason) for pattern, reason in _ALWAYS for match in pattern.finditer(prompt)
    ]
    found += [(span, "a style") for span in _styles(prompt)]
    found += [(span, "an artist") for span in _artists(prompt)]
    found += _parts(prompt, [span for span, _ in found])
    marks = [match.span() for match in _WEIGHT.finditer(prompt)] if _weighted(prompt) else []
    breaks = {start for start, end in marks if prompt[start:end].startswith("::")} | {
        place for place, mark in enumerate(prompt) if mark == "|"
    }
    if not found and not marks:
        return Kept(prompt, tuple(range(len(prompt))), ())
    dropped = [span for span, _ in found] + [
        (start + (start in breaks), end) for start, end in marks
    ]
    places = _tidy(prompt, [i for i in range(len(prompt)) if not _within(i, dropped)])
    text = "".join("," if i in breaks else prompt[i] for i in places)
    return Kept(text, tuple(places), _said(prompt, found))


def _weighted(prompt: str) -> bool:
    return bool(re.search(r"[(\[{][^()]*:\d|\(\(|\)\)|::|\w:\d+\.\d|[\[{]", prompt))


def _within(place: int, spans: list[Range]) -> bool:
    return any(start <= place < end for start, end in spans)


def _said(prompt: str, found: list[tuple[Range, str]]) -> tuple[LeftOut, ...]:
    """In the order of the prompt; of spans that overlap the longest, and of its reasons the
    first: a style that fills its part is a style."""
    said: list[LeftOut] = []
    reasons = {_bare(prompt, span): reason for span, reason in reversed(found)}
    for (start, end), _ in sorted(found, key=lambda each: each[0][0] - each[0][1]):
        reason = reasons[_bare(prompt, (start, end))]
        if not any(start < other.end and other.start < end for other in said):
            said.append(LeftOut(prompt[start:end].strip(" ()"), start, end, reason))
    return tuple(sorted(said, key=lambda each: each.start))


def _bare(prompt: str, span: Range) -> Range:
    """Without the blanks and brackets around it."""
    text = prompt[slice(*span)]
    before, after = len(text) - len(text.lstrip(" ()")), len(text) - len(text.rstrip(" ()"))
    return span[0] + before, span[1] - after


def _tidy(prompt: str, places: list[int]) -> list[int]:
    """Without blanks and commas that follow another or stand at an end."""
    tidy: list[int] = []
    for place in places:
        mark, last = prompt[place], prompt[tidy[-1]] if tidy else ","
        if mark in " \n" and last in " \n,;|" and not (last in ",;|" and tidy and last != mark):
            continue
        if mark in ",;|." and last in " ,;|":
            while tidy and prompt[tidy[-1]] in " ,;|":
                tidy.pop()
            if not tidy:
                continue
        tidy.append(place)
    while tidy and prompt[tidy[-1]] in " ,;|":
        tidy.pop()
    return tidy


def _styles(prompt: str) -> list[Range]:
    """ "in the style of van gogh", and the bare "style of ...": up to the end of its part."""
    return [
        (_widened(prompt, match.start(), ("in", "in the", "in a")), match.end())
        for match in _STYLE.finditer(prompt)
    ]


def _widened(prompt: str, start: int, words: tuple[str, ...]) -> int:
    before = prompt[:start].rstrip()
    for word in words:
        if re.search(rf"\b{word}$", before, re.IGNORECASE):
            return len(before) - len(word)
    return start


def _artists(prompt: str) -> list[Range]:
    """ "by greg rutkowski and alphonse mucha", "inspired by ...", "art by ..."."""
    found: list[Range] = []
    for match in _BY.finditer(prompt):
        names = _names(match[3])
        start = match.start() if match[1] else match.start(2)
        opens = not prompt[:start].strip() or prompt[:start].rstrip()[-1:] in ",;|.:"
        credited = bool(match[1]) or match[2].lower() != "by"
        known = any(name.lower().strip(".") in ARTISTS for name in names)
        proper = (
            bool(names)
            and all(n[0].isupper() or n in SMALL for n in names)
            and names[0] not in SMALL
        )
        if names and (opens or credited or known or proper):
            found.append((start, match.start(3) + _length(match[3], len(names))))
    return found + _further_artists(prompt, found)


def _names(text: str) -> list[str]:
    """The words of ``text`` up to one that no name has; none if that is the first."""
    names: list[str] = []
    for word in text.split():
        if word.lower() in NO_NAMES or word.lower().endswith("ing"):
            break
        names.append(word)
    while names and names[-1].lower() in SMALL:
        names.pop()
    return names if names and names[0].lower() not in SMALL else []


def _length(text: str, words: int) -> int:
    """Characters of the first words."""
    matches = list(re.finditer(r"\S+", text))
    return matches[words - 1].end()


def _further_artists(prompt: str, found: list[Range]) -> list[Range]:
    """The parts behind an artist that are names as well."""
    further: list[Range] = []
    for part in _PART.finditer(prompt):
        behind = any(end <= part.start() for _, end in found)
        words = re.findall(r"[\w.'-]+", part[0])
        known = any(word.lower() in ARTISTS for word in words)
        proper = len(words) in (2, 3, 4) and all(w[0].isupper() or w in SMALL for w in words)
        alone = part.start() > 0 and len(words) <= 3 and words and words[-1].lower() in ARTISTS
        if alone or (behind and words and len(words) <= 8 and (known or proper)):
            further.append(part.span())
    return further


def _parts(prompt: str, found: list[Range]) -> list[tuple[Range, str]]:
    """The parts between commas of which nothing is left but words of tags."""
    parts = list(_PART.finditer(prompt))
    bare = [_rest(prompt, part, found) for part in parts]
    evident = bool(found) or any(word in TAG_WORDS for words in bare for word in words[-1:])
    sentence = prompt.rstrip().endswith(".") and not found
    if sentence or not (evident or len(parts) > 2):
        return []
    tags: list[tuple[Range, str]] = []
    for number, (part, words) in enumerate(zip(parts, bare, strict=True)):
        touched = any(a < part.end() and part.start() < b for a, b in found)
        if _is_tag(words, touched, first=number == 0):
            tags.append((part.span(), "a tag"))
    return tags if len(tags) < len(parts) or found else []


def _rest(prompt: str, part: re.Match[str], found: list[Range]) -> list[str]:
    """The words of a part outside the phrases that were found, in small letters."""
    text = "".join(" " if _within(i, found) else prompt[i] for i in range(part.start(), part.end()))
    return re.findall(r"[a-z0-9][\w'/&-]*", text.lower())


def _is_tag(words: list[str], touched: bool, *, first: bool) -> bool:
    """Whether these words, the rest of a part, name no subject."""
    article = words[:1] and words[0] in _ARTICLES
    words = words[1:] if article and touched else words
    if article and not touched:
        named = all(word in FILLERS or word in TAG_WORDS for word in words[1:])
        return first and named and words[-1] in MEDIA
    if all(word in FILLERS for word in words):
        return touched or bool(words)
    if all(word in FILLERS or word in TAG_WORDS for word in words):
        return not first or touched or words[-1] in HEADS
    articles = {"this", "two", "three", "his", "her", "its", "a", "an", "the"} & set(words[:1])
    if not first and words[0] == "no":
        return True  # "no people": what is not to be shown
    acts = words[0].endswith("ing") and words[0] not in FILLERS | ING_NOUNS
    joins = bool({"of", "on", "from", "holding", "wearing", "at", "by", "his", "her"} & set(words))
    return not first and not articles and not acts and not joins and words[-1] in HEADS
