"""Checks of what attention control computes on an accelerator; of ``tests.perf.device``."""

import os
from contextlib import nullcontext
from functools import cache, partial

import torch
from diffusers import DiffusionPipeline

from attncontrol import Descent, Where, edit, losses, perturb, record, sprites, steer
from attncontrol.batch.generate import called
from attncontrol.bench.prompts import benchmark_prompts, groups_of, things_of
from attncontrol.edits import Replace, SoftIdentity
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from attncontrol.sprites.scorer import detect, shows
from tests.kit.runs import HEIGHT, OPTIONS, PROMPTS, WIDTH, run
from tests.kit.zoo import MORE, ZOO
from tests.perf.device_kit import WORDS, apart, bundled, latents, require_cuda

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LIMITS = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.1}  # of maps, of both devices
STEEP = Descent(step_size=20.0, thresholds={}, guided=1.0)
PAIR = ["a red cat and a turtle", "a blue dog and a turtle"]
OWN = Where(kind=("self", "joint"))


def by_verb(name: str, pipe) -> dict[str, torch.Tensor]:
    """Maps and latents of the verbs, two pictures each, and latents of a plain call after all."""
    make = partial(run, name, pipe, PAIR, seed=[0, 1])
    found = {"plain": make()}
    with record(pipe, ["turtle"]) as maps:
        found["recorded"] = make()
    found["maps"] = maps["turtle"]
    for verb, context in {
        "steer": lambda: steer(pipe, AttendAndExcite(["turtle"]), descent=STEEP),
        "edit": lambda: edit(pipe, Replace()),
        "perturb": lambda: perturb(pipe, SoftIdentity(), scale=2.0, where=OWN),
    }.items():
        if name == "sana" and verb == "perturb":
            continue  # its own attention is linear
        with context():
            found[verb] = make()
    with edit(pipe, Replace()), steer(pipe, AttendAndExcite(["turtle"]), descent=STEEP):
        found["nested"] = make()
    return found | {"after": make()}


def equal(device: str):
    for name, make in ZOO.items():
        yield name, partial(_equal, device, name, make)


def further(device: str):
    for name, make in MORE.items():
        yield name, partial(_equal, device, name, make)


def _equal(device, name, make):
    expected, pipe = by_verb(name, make()), make().to(device)
    found = by_verb(name, pipe)
    differences = {verb: apart(found[verb], expected[verb]) for verb in expected}
    one, other = (_noise_there(device, name, pipe, words) for words in ([], ["turtle"]))
    return {
        "differences": differences,
        "rounding alone": max(differences.values()) < 1e-4,
        "record leaves the picture": torch.equal(found["recorded"], found["plain"]),
        "as before afterwards": torch.equal(found["after"], found["plain"]),
        "generator on the device": torch.equal(one, other),
    }


def _noise_there(device, name, pipe, words):
    """Two pictures of a prompt from noise that the device makes, recorded if words are given."""
    size = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": 2, "output_type": "latent"}
    call = size | OPTIONS.get(name, {}) | {"num_images_per_prompt": 2}
    generator = torch.Generator(device).manual_seed(0)
    with record(pipe, words) if words else nullcontext():
        return pipe(prompt=PROMPTS[0], generator=generator, **call).images


def short_call(name: str) -> dict:
    call = {key: value for key, value in sprites.call(name).items() if "steps" not in key}
    return call | {"steps": 2}


def precision(device: str):
    for name in ("sd", "sd3", "flux", "pixart"):
        yield name, partial(_precision, device, name)


def _precision(device, name):
    call = short_call(name)

    def recorded(pipe):
        with record(pipe, WORDS) as maps:
            made = latents(pipe, **call)
        return made, torch.stack([maps[word] for word in WORDS])

    found = {}
    for kind, dtype in DTYPES.items():
        expected_latents, expected = recorded(bundled(name, "cpu", dtype))
        pipe = bundled(name, device, dtype)
        plain = latents(pipe, **call)
        made, maps = recorded(pipe)
        repeated = torch.equal(latents(pipe, **call), plain)
        found |= {
            f"{kind}, maps": apart(maps, expected),
            f"{kind}, latents": apart(made, expected_latents),
            f"{kind}, within {LIMITS[kind]}": apart(maps, expected) < LIMITS[kind],
            f"{kind}, record leaves the picture": torch.equal(made, plain),
            f"{kind}, plain repeats itself": repeated,
        }
    return found


def verdicts(device: str):
    for name in ("sd", "sd3", "flux"):
        yield name, partial(_verdicts, device, name, *((8, 25) if device != "cpu" else (1, 2)))


def _verdicts(device, name, count, steps):
    """Of pictures of both devices from the same noise; and how many bind their colours."""
    prompts = [each for group in benchmark_prompts().values() for each in group][:: 276 // count]
    prompts = prompts[:count]
    call = sprites.call(name) | {"num_inference_steps": steps}

    def judged(pipe, steered):
        objective = losses.method("auto", groups_of(prompts)) if steered else None
        pictures = called(pipe, prompts, range(count), objective=objective, **call).images
        found = zip(detect(pictures), prompts, strict=True)
        return [all(shows(seen, thing) for thing in things_of(text)) for seen, text in found]

    rows = {}
    for where, dtype in (("cpu", "float32"), (device, "float32"), (device, "bfloat16")):
        pipe = bundled(name, where, DTYPES[dtype])
        torch.set_num_threads(min(8, os.cpu_count() or 1) if where != device else 1)
        for steered in (False, True):
            rows[where, dtype, steered] = judged(pipe, steered)
    found = {
        f"{where}, {dtype}, {'auto' if steered else 'plain'}": f"{sum(row)} of {count}"
        for (where, dtype, steered), row in rows.items()
    }
    for steered in (False, True):
        pairs = zip(rows["cpu", "float32", steered], rows[device, "float32", steered], strict=True)
        same = sum(one == other for one, other in pairs)
        kind = "auto" if steered else "plain"
        found[f"{kind}, same verdicts"] = f"{same} of {count}"
        found[f"{kind}, most are the same"] = 4 * same >= 3 * count
    return found


def _grouped(kind, **streams):
    def put(pipe, device):
        pipe.to(device)
        count = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        family_of(pipe).denoiser(pipe).enable_group_offload(
            torch.device(device), torch.device("cpu"), offload_type=kind, **count, **streams
        )

    return put


OFFLOADS = {
    "sequential": lambda pipe, device: pipe.enable_sequential_cpu_offload(device=device),
    "model": lambda pipe, device: pipe.enable_model_cpu_offload(device=device),
    "leaves, stream": _grouped("leaf_level", use_stream=True),
    "leaves, recorded stream": _grouped("leaf_level", use_stream=True, record_stream=True),
    "blocks, stream": _grouped("block_level", use_stream=True),
    "blocks, recorded stream": _grouped("block_level", use_stream=True, record_stream=True),
    "blocks": _grouped("block_level"),
}


def offloads(device: str):
    for name in ("sd", "flux"):
        expected = cache(lambda name=name: by_verb(name, ZOO[name]().to(device)))
        for how, put in OFFLOADS.items():
            yield f"{how}, {name}", partial(_offloaded, device, name, put, expected)
    yield "device map", partial(_device_map, device)


def _offloaded(device, name, put, on_device):
    require_cuda(device)
    expected, pipe = on_device(), ZOO[name]()
    put(pipe, device)
    found = by_verb(name, pipe)
    differences = {verb: apart(found[verb], expected[verb]) for verb in expected}
    return {
        "differences": differences,
        "rounding alone": max(differences.values()) < 1e-9,
        "record leaves the picture": torch.equal(found["recorded"], found["plain"]),
        "as before afterwards": torch.equal(found["after"], found["plain"]),
    }


def _device_map(device):
    require_cuda(device)
    mapped = DiffusionPipeline.from_pretrained(sprites.path("flux"), device_map=device)
    found = []
    for pipe in (mapped, bundled("flux", device)):
        with record(pipe, WORDS) as maps, steer(pipe, AttendAndExcite(WORDS), descent=STEEP):
            made = latents(pipe, **short_call("flux"))
        found.append((maps["cat"], made))
    (maps, made), (other_maps, other) = found
    return {"maps": torch.equal(maps, other_maps), "latents": torch.equal(made, other)}
