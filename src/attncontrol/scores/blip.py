"""BLIP's captions and answers (Li et al. 2022, arXiv 2201.12086).

caption   f(caption of the picture) . f(prompt), f of CLIP as in ``scores.clip``; the caption is
          what BLIP says after "a picture of", 3 beams, 10 to 30 tokens: Attend-and-Excite's
          similarity of texts.
vqa       product over the first 8 noun phrases of the prompt of P(yes) / (P(yes) + P(no)), the
          first word of BLIP's answer to "a red cat?": disentangled BLIP-VQA of T2I-CompBench
          (Huang et al. 2023, arXiv 2307.06350). NaN of a prompt without a noun phrase.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attncontrol.errors import ModelError
from attncontrol.jobs.item import Item
from attncontrol.scores.loading import loaded, parts
from attncontrol.scores.phrases import noun_phrases

_BEGIN = "a picture of "
_PHRASES = 8


class Captions:
    def __init__(self, model: str, device: str):
        from transformers import BlipForConditionalGeneration

        kinds = {"blip": BlipForConditionalGeneration}
        self._model, self._processor = loaded(kinds, model, device, "--caption-model")
        self._device = device

    def score(self, name: str, clip: Any) -> Callable[..., list[float]]:  # noqa: ARG002
        return partial(self._similarity, clip)

    def _similarity(
        self, clip: Any, pictures: Sequence[Image.Image], items: Sequence[Item]
    ) -> list[float]:
        said = clip.texts(self(pictures))
        return [float(of @ clip.prompt(item.prompt)) for of, item in zip(said, items, strict=True)]

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        captions: list[str] = []
        for part in parts(pictures):
            given = self._processor(
                images=[picture.convert("RGB") for picture in part],
                text=[_BEGIN] * len(part),
                return_tensors="pt",
            ).to(self._device)
            made = self._model.generate(**given, num_beams=3, max_length=30, min_length=10)
            texts = self._processor.batch_decode(made, skip_special_tokens=True)
            captions += [text.strip().removeprefix(_BEGIN.strip()).strip() for text in texts]
        return captions


class Questions:
    def __init__(self, model: str, device: str):
        from transformers import BlipForQuestionAnswering

        kinds = {"blip": BlipForQuestionAnswering}
        self._model, self._processor = loaded(kinds, model, device, "--vqa-model")
        self._device, self._tokens = device, self._processor.tokenizer
        self._answers = [self._tokens.convert_tokens_to_ids(word) for word in ("yes", "no")]
        if self._tokens.unk_token_id in self._answers:
            raise ModelError(f"{model} knows no words yes and no; give --vqa-model another one")

    def score(self, name: str) -> Callable[..., list[float]]:  # noqa: ARG002
        return self._product

    def _product(self, pictures: Sequence[Image.Image], items: Sequence[Item]) -> list[float]:
        values = []
        for part in parts(list(zip(pictures, items, strict=True))):
            asked = [noun_phrases(item.prompt)[:_PHRASES] for _, item in part]
            sure = iter(self.yes([picture for picture, _ in part], asked).tolist())
            of = [[next(sure) for _ in phrases] for phrases in asked]
            values += [math.prod(each) if each else float("nan") for each in of]
        return values

    @torch.inference_mode()
    def yes(self, pictures: Sequence[Image.Image], asked: Sequence[Sequence[str]]) -> Tensor:
        """[question], picture by picture."""
        questions = [f"{phrase}?" for phrases in asked for phrase in phrases]
        if not questions:
            return torch.zeros(0)
        rgb = [picture.convert("RGB") for picture in pictures]
        given = self._processor.image_processor(rgb, return_tensors="pt").to(self._device)
        seen = self._model.vision_model(pixel_values=given["pixel_values"]).last_hidden_state
        counts = torch.tensor([len(phrases) for phrases in asked], device=self._device)
        of_question = seen.repeat_interleave(counts, 0)
        ids = [
            self._tokens(each, truncation=True, max_length=35)["input_ids"] for each in questions
        ]
        values = torch.zeros(len(ids))
        # of one length at a time: in transformers 5 BLIP's decoder sees what pads a question
        for length in {len(each) for each in ids}:
            places = [k for k, each in enumerate(ids) if len(each) == length]
            alike = torch.tensor([ids[k] for k in places], device=self._device)
            values[places] = self._decoded(of_question[places], alike).cpu()
        return values

    def _decoded(self, seen: Tensor, ids: Tensor) -> Tensor:
        begin = self._model.config.text_config.bos_token_id  # [DEC]; [ENC] is the next
        ids[:, 0] = begin + 1  # as BLIP was trained; the tokenizer has [CLS]
        states = self._model.text_encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], device=seen.device),
        ).last_hidden_state
        logits = self._model.text_decoder(
            input_ids=torch.full_like(ids[:, :1], begin),
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones_like(ids),
        ).logits
        return logits[:, 0, self._answers].float().softmax(-1)[:, 0]  # of the two alone
