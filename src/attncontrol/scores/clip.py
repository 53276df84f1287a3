"""CLIP similarity as Attend-and-Excite measures it (Chefer et al. 2023, arXiv 2301.13826).

f(picture) and f(text) are embeddings of length 1. That of a prompt is the mean over the 80 ImageNet
templates of CLIP ("a photo of a {}."), of length 1 again; double articles that they cause are
removed.

clip        f(picture) . f(prompt)
clip-min    min over parts of the prompt of f(picture) . f(part): parts lie between " and ", where
            there is none between " with "; NaN of a prompt that has one part. The paper has two
            parts; of more, all count.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attncontrol.jobs.item import Item
from attncontrol.scores.loading import OfLast, loaded, parts


class Clip:
    def __init__(self, model: str, device: str):
        from transformers import CLIPModel

        self._model, self._processor = loaded({"clip": CLIPModel}, model, device, "--clip-model")
        self._device = device
        self._of_pictures = OfLast(self.pictures)
        self.prompt = cache(self._prompt)

    def score(self, name: str) -> Callable[..., list[float]]:
        return self._whole if name == "clip" else self._least

    def _whole(self, pictures: Sequence[Image.Image], items: Sequence[Item]) -> list[float]:
        seen = self._of_pictures(pictures)
        return [float(of @ self.prompt(item.prompt)) for of, item in zip(seen, items, strict=True)]

    def _least(self, pictures: Sequence[Image.Image], items: Sequence[Item]) -> list[float]:
        seen = self._of_pictures(pictures)
        return [
            min((float(of @ self.prompt(part)) for part in halves(item.prompt)), default=_NAN)
            for of, item in zip(seen, items, strict=True)
        ]

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[picture feature], of length 1."""
        made = []
        for part in parts(pictures):
            rgb = [picture.convert("RGB") for picture in part]
            given = self._processor(images=rgb, return_tensors="pt").to(self._device)
            of = self._model.vision_model(pixel_values=given["pixel_values"]).pooler_output
            made.append(self._model.visual_projection(of))
        return F.normalize(torch.cat(made).float(), dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """[text feature], of length 1; what is too long for the model is cut."""
        made = []
        for part in parts(texts, 80):
            given = self._processor(
                text=list(part), padding=True, truncation=True, return_tensors="pt"
            ).to(self._device)
            of = self._model.text_model(given["input_ids"], given["attention_mask"]).pooler_output
            made.append(self._model.text_projection(of))
        return F.normalize(torch.cat(made).float(), dim=-1)

    def _prompt(self, prompt: str) -> Tensor:
        """[feature] of a prompt in all templates, of length 1."""
        return F.normalize(self.texts(templated(prompt)).mean(0), dim=-1)


_NAN = float("nan")


def halves(prompt: str) -> list[str]:
    """The parts of a prompt; none of one that has no " and " or " with "."""
    for word in (" and ", " with "):
        if word in prompt:
            return prompt.split(word)
    return []


def templated(prompt: str) -> list[str]:
    """A prompt in all templates: "a photo of a" and "a cat" are "a photo of a cat"."""
    texts = [template.replace("{}", prompt) for template in _templates()]
    return [text.replace("a a", "a").replace("the a", "a") for text in texts]


@cache
def _templates() -> tuple[str, ...]:
    text = files("attncontrol.scores").joinpath("templates.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
