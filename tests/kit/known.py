"""A tiny pipeline of a newer family, with what is known of it and what it was caught doing."""

import inspect
from contextlib import contextmanager

import torch

from attncontrol.families.known import family_of
from attncontrol.running.observers import named
from attncontrol.running.session import Hooks, attach
from tests.kit.zoo_given import GIVEN
from tests.kit.zoo_newer import NEWER
from tests.kit.zoo_pictures import PICTURES
from tests.kit.zoo_unets import UNETS
from tests.kit.zoo_videos import VIDEOS

PROMPTS = ["a red cat and a turtle", "a dog"]
WORDS = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog"]}
PIECES = {"cat": "cat", "turtle": "tur tle", "dog": "dog"}
ALL = NEWER | VIDEOS | UNETS | GIVEN | PICTURES


def noisy_of(sample):
    """Of rows of several pictures the last of each, else what the denoiser is given."""
    return torch.stack([row[-1] for row in sample]) if isinstance(sample, list) else sample


def with_noisy(sample, last):
    """The same in its place."""
    if not isinstance(sample, list):
        return last
    return [[*row[:-1], own] for row, own in zip(sample, last, strict=True)]


class Tiny:
    """A pipeline, what is known of it, and what its plain run did."""

    def __init__(self, name):
        self.name, self.known = name, ALL[name]
        self.pipe = self.known.make()
        self.family = family_of(self.pipe)
        self.denoiser = self.family.denoiser(self.pipe)
        self.sites = [s.name for s in self.known.where.select(self.family.sites(self.denoiser))]
        self.prompts = PROMPTS[: self.known.prompts]

    def run(self, prompt=None, **options):
        call = {
            "height": 64, "width": 96, "num_inference_steps": 2, "output_type": "latent",
            "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(0),
        }  # fmt: skip
        known = inspect.signature(type(self.pipe).__call__).parameters
        call = {name: value for name, value in call.items() if name in known}
        prompt = prompt or (self.prompts if len(self.prompts) > 1 else self.prompts[0])
        prompt = prompt if isinstance(prompt, str) else [*prompt]  # some write into it
        made = self.pipe(prompt=prompt, **call | self.known.options | options)[0]
        return torch.cat(made) if isinstance(made, list) else made

    @contextmanager
    def caught(self):
        """The rows of ids that the text encoder reads, and the arguments of every denoiser call."""
        ids, calls = [], []

        def heard(_, args, kwargs):
            ids.extend((args[0] if args else kwargs["input_ids"]).tolist())

        def called(denoiser, args, kwargs):
            given = named(denoiser, args, kwargs)  # which pipelines change in place
            calls.append({k: v.clone() if torch.is_tensor(v) else v for k, v in given.items()})

        name, _, part = self.known.encoder.partition(".")
        encoder = getattr(self.pipe, name).get_submodule(part)
        hooks = [
            encoder.register_forward_pre_hook(heard, with_kwargs=True),
            self.denoiser.register_forward_pre_hook(called, with_kwargs=True),
        ]
        yield ids, calls
        for hook in hooks:
            hook.remove()

    def positions(self, word, ids):
        """Of a word in the text that the denoiser reads, from the ids that were caught."""
        name = self.known.encoder.partition(".")[0].replace("text_encoder", "tokenizer")
        name = name.replace("transformer", "tokenizer")  # of one that embeds the ids itself
        tokenizer = getattr(self.pipe, name, None) or self.pipe.processor.tokenizer
        pieces = PIECES[word].split()
        for row in ids:
            read = tokenizer.convert_ids_to_tokens(row)
            texts = [t.strip("\u0120\u2581").removesuffix("</w>") for t in read]
            for k in range(len(texts)):
                if texts[k : k + len(pieces)] == pieces:
                    filled = [one == tokenizer.pad_token_id for one in row].index(False)
                    dropped = self.known.dropped(self.pipe) + filled * self.known.fronted
                    pictures = texts[:k].count("<|image_pad|>")
                    start = k - dropped + pictures * (self.known.of_a_picture - 1)
                    return [start + i for i in range(len(pieces))]
        raise AssertionError(word)

    def cond(self, rows):
        """Those of a call that are conditional."""
        if self.known.calls == 2 or self.known.cond is None:
            return rows
        return rows.chunk(2)[self.known.cond]


def seen_by_hooks(tiny, prompts, look, **options):
    """``look(session, call, prediction)`` at every call of the denoiser."""
    session = attach(tiny.pipe)

    def after(call, prediction):
        look(session, call, prediction)
        return prediction

    with session.hooked(Hooks(after=after)):
        tiny.run(prompts, **options)
