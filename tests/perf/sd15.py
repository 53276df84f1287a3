"""Time and memory on a full-size, randomly initialised SD 1.5 UNet at 512 px in float32: python -m
tests.perf.sd15 WHAT, one of

steer    a run steered by attncontrol against diffusers' own Attend-and-Excite pipeline: same steps,
         same thresholds, same scheduler
record   runs that record all words of the prompt against a plain run: their mean (``record``),
         every step and layer streamed to a folder (``stream``), and where they are installed
         attention-map-diffusers 1.0.0, all timesteps, and DAAM 0.2.0
perturb  without classifier-free guidance, the weakened pass of all heads of the middle block
         (``perturb``) and diffusers' own PAG pipeline (``pag``) against the plain run of one
         conditional pass per step (``alone``): what is above 1 is the cost
keep     an edit of a source, prompt-to-prompt: both in one batch (``pair``), the pass that is kept
         (``keep``) and one edit of it (``again``, in memory), against the plain run of one picture;
         and what is kept of a picture

Every variant runs in a process of its own, in turns; memory is the peak resident size above that
after loading.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionAttendAndExcitePipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from attncontrol import Descent, Where, edit, keep, record, steer
from attncontrol.edits.replace import Replace
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.maps.kept import KeptPass
from attncontrol.sprites.training.text import make_tokenizer
from attncontrol.verbs.perturb import perturb
from tests.kit.tiny import tiny_text_encoder, tiny_vae

VARIANTS = {
    "steer": ("diffusers", "steer"),
    "record": ("plain", "record", "stream"),
    "perturb": ("alone", "perturb", "pag"),
    "keep": ("plain", "pair", "keep", "again"),
}
PEERS = ("attention_map_diffusers", "daam")
PROMPT, WORDS = "a cat and a frog", ["a", "cat", "and", "frog"]
CHANGED = "a dog and a frog"


def components():
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 77
    return {
        "unet": UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        ).eval(),
        "text_encoder": tiny_text_encoder(tokenizer, width=768),
        "tokenizer": tokenizer,
        "vae": tiny_vae(),
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def variant(name: str, steps: int, guided: int, folder: Path):
    cls = {
        "diffusers": StableDiffusionAttendAndExcitePipeline,
        "pag": StableDiffusionPAGPipeline,
    }.get(name, StableDiffusionPipeline)
    pipe = cls(**components(), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    call = {
        "num_inference_steps": steps,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
    }
    call |= {"guidance_scale": 1.0} if name in ("alone", "perturb", "pag") else {}
    source = KeptPass()
    if name == "again":
        with keep(pipe, Replace()) as source:
            pipe(PROMPT, **call)
        call["generator"].manual_seed(0)
    before, began, cpu = peak_mib(), time.perf_counter(), time.process_time()
    if name == "diffusers":
        call |= {"token_indices": [2, 5], "max_iter_to_alter": guided, "thresholds": {}}
        latents = pipe(PROMPT, **call).images
    elif name == "steer":
        descent = Descent(guided=guided / steps, thresholds={})
        with steer(
            pipe,
            AttendAndExcite(["cat", "frog"]),
            where=Where(kind="cross", stride=4),
            descent=descent,
        ):
            latents = pipe(PROMPT, **call).images
    elif name == "perturb":
        with perturb(
            pipe, SoftIdentity(), scale=3.0, where=Where(kind="self", layers=("mid_block",))
        ):
            latents = pipe(PROMPT, **call).images
    elif name == "pag":
        latents = pipe(PROMPT, pag_scale=3.0, **call).images
    elif name == "pair":
        with edit(pipe, Replace()):
            latents = pipe([PROMPT, CHANGED], **call).images
    elif name == "keep":
        with keep(pipe, Replace()) as source:
            latents = pipe(PROMPT, **call).images
    elif name == "again":
        with edit(pipe, Replace(source=source)):
            latents = pipe(CHANGED, **call).images
    elif name == "record":
        with record(pipe, WORDS):
            latents = pipe(PROMPT, **call).images
    elif name == "stream":
        with record(pipe, WORDS, to=folder, encoding="float16"):
            latents = pipe(PROMPT, **call).images
    elif name == "daam":
        from daam import trace

        with torch.no_grad(), trace(pipe) as capture:
            latents = pipe(PROMPT, **call).images
            torch.save(capture.compute_global_heat_map(PROMPT).heat_maps, folder / "maps.pt")
    elif name == "attention_map_diffusers":
        from attention_map_diffusers import AttentionCapture

        with AttentionCapture(
            pipe, relations=["image->text"], timesteps="all", mode="fast"
        ) as capture:
            latents = pipe(PROMPT, **call).images
        torch.save(capture.compute(), folder / "maps.pt")
    else:
        latents = pipe(PROMPT, **call).images
    written = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "seconds": seconds,
        "processor": cpu,
        "mib": peak_mib() - before,
        "sum": latents.double().sum().item(),
        "written_mib": written,
        "kept_mib": source.nbytes / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=[
            *VARIANTS,
            "diffusers",
            "plain",
            "stream",
            "alone",
            "pag",
            "pair",
            "again",
            *PEERS,
        ],
    )
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guided", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", action="store_true", help="run one variant in this process")
    args = parser.parse_args()
    if args.one:
        with TemporaryDirectory() as folder:
            print(json.dumps(variant(args.what, args.steps, args.guided, Path(folder))))
        return
    peers = [name for name in PEERS if find_spec(name)]
    names = [*VARIANTS[args.what], *(peers if args.what == "record" else ())]
    runs = {name: [] for name in names}
    for _ in range(args.repeats):
        for name in names:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.perf.sd15",
                name,
                "--one",
                "--steps",
                str(args.steps),
            ]
            done = subprocess.run(
                [*command, "--guided", str(args.guided)], check=True, capture_output=True, text=True
            )
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, runs[name][-1], flush=True)
    for key in ("seconds", "processor", "mib"):
        first, *others = (statistics.median(run[key] for run in runs[name]) for name in names)
        for name, of in zip(names[1:], others, strict=True):
            print(f"{key}: {name} / {names[0]} = {of:.1f} / {first:.1f} = {of / first:.3f}")


if __name__ == "__main__":
    main()
