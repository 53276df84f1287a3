"""Which scores there are, what they say, and which models they use; without torch."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from attncontrol.errors import SettingError
from attncontrol.sprites import MODELS

SPRITES = ("present", "bound", "confidence")
"""Of pictures of the bundled models alone."""
ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "present": "all nouns are shown, 1 or 0 (bundled models)",
        "bound": "all nouns are shown in their colours, 1 or 0 (bundled models)",
        "confidence": "of the scorer in the nouns that it found (bundled models)",
        "clip": "CLIP similarity of the picture and the prompt, of 80 templates",
        "clip-min": 'the least CLIP similarity of the picture and a part of the prompt, at " and "',
        "caption": "CLIP similarity of BLIP's caption of the picture and the prompt",
        "vqa": "product over noun phrases of BLIP's probability that the picture has them",
        "detected": "a detector finds all nouns, 1 or 0",
        "detected-colors": "a detector finds all nouns, and CLIP says their colours, 1 or 0",
    }
)


@dataclass(frozen=True)
class Models:
    """Local folders or hub ids, of models of transformers: CLIP; BLIP for captions; BLIP for
    questions; OWL-ViT, or a detector of a fixed list of things, such as DETR."""

    clip: str = "openai/clip-vit-base-patch16"
    captions: str = "Salesforce/blip-image-captioning-base"
    vqa: str = "Salesforce/blip-vqa-capfilt-large"
    detector: str = "google/owlvit-base-patch32"


NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "clip": ("clip",),
        "clip-min": ("clip",),
        "caption": ("captions", "clip"),
        "vqa": ("vqa",),
        "detected": ("detector",),
        "detected-colors": ("detector", "clip"),
    }
)
"""Fields of ``Models`` that a score uses."""
assert set(NEEDS) <= set(ABOUT)
assert {name for names in NEEDS.values() for name in names} == {
    field.name for field in dataclasses.fields(Models)
}


def require_scores(names: Iterable[str], models: Iterable[str]) -> None:
    """Raises SettingError for names that are none, or none for pictures of these models."""
    given = list(names)
    for name in given:
        if name not in ABOUT and ":" not in name:
            near = get_close_matches(name, ABOUT, 1, 0.6)
            meant = f"did you mean {near[0]}? " if near else ""
            raise SettingError(
                f"score {name!r}: {meant}There are {', '.join(ABOUT)}, and your own, "
                "module:function"
            )
    if twice := [name for name in given if given.count(name) > 1]:
        raise SettingError(f"score {twice[0]!r} is there twice")
    others = sorted(set(models) - set(MODELS))
    if others and (bundled := [name for name in given if name in SPRITES]):
        raise SettingError(
            f"score {bundled[0]!r} knows pictures of {', '.join(MODELS)}, and these are of "
            f"{others[0]}; choose among {', '.join(NEEDS)}"
        )


def of_models(models: Iterable[str]) -> tuple[str, ...]:
    """Those that need no further model, for pictures of these."""
    return SPRITES if set(models) <= set(MODELS) else ()
