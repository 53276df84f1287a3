"""The prompts of Attend-and-Excite and what they name in the world of the bundled models."""

from collections.abc import Iterable
from importlib.resources import files

from attncontrol.sprites.scenes import COLORS, NOUNS, Thing

GROUPS = ("animal-animal", "animal-object", "object-object")


def benchmark_prompts() -> dict[str, list[str]]:
    """The 66 + 144 + 66 prompts of Attend-and-Excite (arXiv 2301.13826), by group."""
    text = files("attncontrol.sprites").joinpath("prompts.txt").read_text("utf-8")
    blocks = [
        [line for line in block.splitlines() if not line.startswith("#")]
        for block in text.strip().split("\n\n")
    ]
    return dict(zip(GROUPS, blocks, strict=True))


def things_of(prompt: str) -> tuple[Thing, ...]:
    """Nouns of the world in a prompt, each with the colour word before it."""
    words = prompt.replace(",", " ").split()
    return tuple(
        Thing(word, words[i - 1] if words[i - 1] in COLORS else None)
        for i, word in enumerate(words)
        if word in NOUNS
    )


def groups_of(prompts: Iterable[str]) -> dict[str, list[list[str]]]:
    """The subjects of every prompt: noun, or colour and noun."""
    return {
        prompt: [[word for word in (t.color, t.noun) if word] for t in things_of(prompt)]
        for prompt in prompts
    }
