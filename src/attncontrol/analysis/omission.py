"""Whether a model of joint attention knows that it leaves a word out (after OSI, Baek et al. 2026,
arXiv 2605.14270).

    theta      = (m_absent - m_present) / |m_absent - m_present|      in every head
    direction  = sigma theta, sigma the standard deviation of <k, theta> over all keys
    accuracy   = mean over both kinds of how often <k, theta> lies on the right side of the middle
                 of both means, for keys that were held out

Keys k are those of words, mean over their tokens, in the middle of the run: before, no picture is
there yet, at its end the signal fades. The official code takes two of 30 steps of FLUX.1-dev, of
noise 0.65 and 0.81, some thousand pictures whose words two models look for, and as many of one kind
as of the other for every noun. ``edits.OmissionSignal`` moves keys along the directions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Head, Where
from attncontrol.checks.arguments import Count, Share, SomeWords, checked
from attncontrol.edits.merge import keys_of
from attncontrol.errors import SettingError
from attncontrol.verbs.edit import edit

HeadKeys = Float[Tensor, "sample head dim"]
Keys = Mapping[str, HeadKeys]
"""Keys of a word by site; a sample is an image in a step."""


@checked
@contextmanager
def word_keys(
    pipe: Any, words: SomeWords, *, noise: tuple[Share, Share] = (0.6, 0.85)
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Keys of words of the prompt, in the conditional branch of all images and the steps whose
    share of ``noise`` lies between two; by word and site when the pipeline has run.

        with word_keys(pipe, ["cat", "frog"]) as keys:
            image = pipe("a cat and a frog").images[0]

    Raises SiteError for a model without joint attention, WordError; SettingError for a run that has
    no such step.
    """
    found: dict[str, dict[str, list[Tensor]]] = {word: {} for word in words}
    result: dict[str, dict[str, Tensor]] = {}

    def look(call: AttentionCall, now: Moment) -> AttentionCall:
        if now.purpose == "own" and noise[0] <= now.step.noise <= noise[1]:
            for row in range(len(call.key))[now.rows("cond")]:
                for word, of_sites in found.items():
                    key = call.key[row, :, keys_of(word, row, call, now)].detach().mean(1)
                    of_sites.setdefault(call.site.name, []).append(key.float().cpu())
        return call

    with edit(pipe, look, where=Where(kind="joint")):
        yield result
    if not all(found.values()):
        raise SettingError(f"no step has a share of noise between {noise[0]} and {noise[1]}")
    result |= {
        word: {site: torch.stack(keys) for site, keys in of_sites.items()}
        for word, of_sites in found.items()
    }


@checked
def directions(
    absent: Sequence[Keys], present: Sequence[Keys], *, top: Count = 300, held_out: Share = 0.1
) -> tuple[dict[str, Tensor], dict[Head, float]]:
    """By site sigma theta [head dim] of the ``top`` heads of highest accuracy, 0 for the others;
    and the accuracy of every head, best first. ``safetensors.torch.save_file`` keeps the former.

    ``absent`` and ``present`` are keys of words that pictures do not show and that they show, the
    last share of which is ``held_out``; with 0 those that directions come from are tested. Raises
    SettingError for none of a kind.
    """
    if not (absent and present):
        raise SettingError("directions need keys of words that are absent, and that are present")
    along: dict[str, Tensor] = {}
    right: dict[Head, float] = {}
    for site in absent[0]:
        tested, learned = [], []
        for kind in (absent, present):
            kept = max(round(len(kind) * (1 - held_out)), 1)
            learned.append(torch.cat([keys[site] for keys in kind[:kept]]).double())
            tested.append(torch.cat([keys[site] for keys in kind[kept:] or kind]).double())
        means = [keys.mean(0) for keys in learned]
        theta = torch.nn.functional.normalize(means[0] - means[1], dim=-1)
        sigma = (torch.cat(learned) * theta).sum(-1).std(0)
        middle = ((means[0] + means[1]) / 2 * theta).sum(-1)
        above = [((keys * theta).sum(-1) > middle).double().mean(0) for keys in tested]
        along[site] = sigma[:, None] * theta
        right |= {(site, head): float(r) for head, r in enumerate((above[0] + 1 - above[1]) / 2)}
    accuracy = dict(sorted(right.items(), key=lambda item: -item[1]))
    for site, head in list(accuracy)[top:]:
        along[site][head] = 0.0
    return {site: each.float() for site, each in along.items()}, accuracy
