"""Prompt-to-prompt against the community pipeline of diffusers, a pair of prompts on a full-size,
randomly initialised SD 1.5 UNet at 512 px in float32: python -m tests.perf.p2p [--repeats 3].

theirs   examples/community/pipeline_prompt2prompt.py of diffusers, a copy of which the environment
         variable P2P_PIPELINE names; it is in no package
ours     edit(pipe, Replace(...)) with the same shares and cells

    P2P_PIPELINE=pipeline_prompt2prompt.py python -m tests.perf.p2p

The file is at https://raw.githubusercontent.com/huggingface/diffusers/main/examples/community/.
Maps are replaced in half of the steps. Every variant runs in a process of its own, in turns; memory
is the peak resident size above that after loading. The latents must agree to 1e-5 of the largest.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import StableDiffusionPipeline

from attncontrol import edit
from attncontrol.edits import Replace
from tests.perf.sd15 import CHANGED, PROMPT, components, peak_mib

VARIABLE, LAST = "P2P_PIPELINE", 16 * 16  # the most cells of the self-attention that it replaces
MISSING = (
    f"{VARIABLE} names no file: set it to a copy of examples/community/pipeline_prompt2prompt.py "
    "of github.com/huggingface/diffusers"
)


def community(path: str):
    """The class of the community pipeline in a file."""
    spec = importlib.util.spec_from_file_location("community_p2p", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Prompt2PromptPipeline


def variant(name: str, steps: int, file: Path):
    cls = community(os.environ[VARIABLE]) if name == "theirs" else StableDiffusionPipeline
    pipe = cls(**components(), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    call = {
        "num_inference_steps": steps,
        "output_type": "latent",
        "generator": [torch.Generator().manual_seed(0) for _ in range(2)],
    }
    before, began, cpu = peak_mib(), time.perf_counter(), time.process_time()
    if name == "theirs":
        shares = {"edit_type": "replace", "n_cross_replace": 0.5, "n_self_replace": 0.5}
        latents = pipe([PROMPT, CHANGED], cross_attention_kwargs=shares, **call).images
    else:
        with edit(pipe, Replace(cross=0.5, among=0.5, cells=LAST)):
            latents = pipe([PROMPT, CHANGED], **call).images
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    torch.save(latents, file)
    return {"seconds": seconds, "processor": cpu, "mib": peak_mib() - before}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "FILE"), help="in this process")
    args = parser.parse_args()
    if not Path(os.environ.get(VARIABLE, "")).is_file():
        sys.exit(f"skipped: {MISSING}")
    if args.one:
        print(json.dumps(variant(args.one[0], args.steps, Path(args.one[1]))))
        return
    ratios = []
    for _ in range(args.repeats):
        with TemporaryDirectory() as folder:
            rows, latents = {}, {}
            for name in ("theirs", "ours"):
                file = f"{folder}/{name}.pt"
                command = [sys.executable, "-W", "ignore", "-m", "tests.perf.p2p"]
                command += ["--one", name, file, "--steps", str(args.steps)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows[name] = json.loads(done.stdout.splitlines()[-1])
                latents[name] = torch.load(file)
        error = (latents["ours"] - latents["theirs"]).abs().max() / latents["theirs"].abs().max()
        assert error < 1e-5, error
        ratios.append({key: rows["ours"][key] / rows["theirs"][key] for key in rows["ours"]})
        print(rows, f"latents differ by {error:.1e}", flush=True)
    for key in ratios[0]:
        values = [ratio[key] for ratio in ratios]
        print(
            f"{key}: ours / theirs {statistics.median(values):.3f} "
            f"({min(values):.3f} to {max(values):.3f})"
        )


if __name__ == "__main__":
    main()
