"""Directions of keys of words that pictures leave out, and the keys that they come from."""

import pytest
import torch

from attncontrol.analysis.omission import directions, word_keys
from attncontrol.attention.sites import Where
from attncontrol.edits import OmissionSignal
from attncontrol.errors import SettingError, SiteError
from attncontrol.verbs.edit import edit
from tests.kit.runs import run
from tests.kit.zoo import flux, sd

JOINT = Where(kind="joint")


def drawn(seed, mean):
    rng = torch.Generator().manual_seed(seed)
    keys = torch.randn(3, 2, 4, generator=rng)
    keys[:, 1, 2] += mean
    return {"here": keys}


def test_directions_lead_from_shown_words_to_missing_ones_in_the_heads_that_know():
    absent, present = [drawn(s, 4.0) for s in range(20)], [drawn(s, 0.0) for s in range(20, 40)]
    along, accuracy = directions(absent, present, top=1)
    assert next(iter(accuracy)) == ("here", 1)
    assert not along["here"][0].any()
    keys = [torch.cat([k["here"] for k in kind[:18]])[:, 1].double() for kind in (absent, present)]
    difference = keys[0].mean(0) - keys[1].mean(0)
    theta = difference / difference.norm()
    sigma = (torch.cat(keys) @ theta).std()
    torch.testing.assert_close(along["here"][1], (sigma * theta).float())
    middle = (keys[0].mean(0) + keys[1].mean(0)) @ theta / 2
    held = [torch.cat([k["here"] for k in kind[18:]])[:, 1] for kind in (absent, present)]
    right = [float((k.double() @ theta > middle).double().mean()) for k in held]
    assert accuracy["here", 1] == pytest.approx((right[0] + 1 - right[1]) / 2)
    with pytest.raises(SettingError, match="absent, and that are present"):
        directions(absent, [])


def test_keys_of_words_are_those_before_the_change_of_an_outer_edit():
    pipe, prompts = flux(), ["a red cat", "a cat"]
    seen = {}

    def look(call, now):
        if 0.3 <= now.step.noise <= 1:
            for row in range(2):
                at = list(now.span("cat", row).positions)
                seen.setdefault(call.site.name, []).append(call.key[row][:, at].mean(1))
        return call

    plain = run("flux", pipe, prompts)
    with word_keys(pipe, ["cat"], noise=(0.3, 1.0)) as keys, edit(pipe, look, where=JOINT):
        assert torch.equal(run("flux", pipe, prompts), plain)
    assert keys["cat"].keys() == seen.keys()
    for site, found in keys["cat"].items():
        torch.testing.assert_close(found, torch.stack(seen[site]).float())
    along, _ = directions([keys["cat"]], [{k: -v for k, v in keys["cat"].items()}], held_out=0.0)
    with edit(pipe, OmissionSignal(along, ["cat"])):
        assert (run("flux", pipe, prompts) - plain).abs().max() > 1e-4
    of_two, site = {site: d[:, :3] for site, d in along.items()}, next(iter(along))
    with pytest.raises(SettingError, match=f"directions of {site} are"):  # noqa: SIM117
        with edit(pipe, OmissionSignal(of_two, ["cat"])):
            run("flux", pipe, prompts)


def test_runs_without_such_steps_and_models_without_joint_attention_are_refused():
    with pytest.raises(SettingError, match="no step has a share of noise"):  # noqa: SIM117
        with word_keys(pipe := flux(), ["cat"], noise=(0.001, 0.002)):
            run("flux", pipe, "a cat")
    with pytest.raises(SiteError), word_keys(sd(), ["cat"]):
        pass
