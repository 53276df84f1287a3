"""Joint attention of FLUX at 1024 px, 24 heads x 4,608 positions of width 128, float32: python -m
tests.perf.joint [--repeats 5].

plain      the attention alone
record     with the maps of 8 words for all 4,096 picture positions
gradient   the 8 maps and their gradient in the queries (a step of steering), with the kernel
explicit   the 8 maps from the explicit softmax
regions    two boxes with texts of 12 tokens each, which see their text alone (base 0)
shared     the same, with a share of the prompt (base 0.2)

Every variant runs in a process of its own, in turns; memory is the peak resident size above that of
the inputs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from attncontrol.attention.between import text_mass
from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.sites import Site
from attncontrol.edits import Regions
from attncontrol.running.further import hidden
from tests.kit.moments import moment
from tests.perf.sd15 import peak_mib

HEADS, TEXT, GRID, WIDTH = 24, 512, (64, 64), 128
TOKENS = 12  # of the text of a region
BOXES = {"a red cat": (0.0, 0.2, 0.5, 1.0), "a blue frog": (0.5, 0.2, 1.0, 1.0)}
BASES = {"regions": 0.0, "shared": 0.2}
VARIANTS = ("plain", "record", "gradient", "explicit", *BASES)
WORDS = [[(3 * k, 3 * k + 1) for k in range(8)]]


def variant(name: str):
    torch.manual_seed(0)
    text = TEXT + TOKENS * len(BOXES) * (name in BASES)
    query, key, value = (torch.randn(1, HEADS, text + GRID[0] * GRID[1], WIDTH) for _ in range(3))
    call = AttentionCall(Site("joint", "joint", HEADS, 2), query, key, value)
    layout = Layout(GRID, slice(text, None), slice(text))
    warm = AttentionCall(call.site, *(part[:, :1, :600] for part in (query, key, value)))
    warm.run()
    before, began = peak_mib(), time.perf_counter()
    if name == "gradient":
        query.requires_grad_()
        text_mass(call, layout, WORDS).sum().backward()
    elif name in BASES:
        places = {of: slice(TOKENS * k, TOKENS * (k + 1)) for k, of in enumerate(BOXES)}
        call, layout = hidden(call, layout, places)
        with torch.no_grad():
            result = Regions(BOXES, base=BASES[name])(call, moment(layout))
            result.run() if isinstance(result, AttentionCall) else result
    elif name == "explicit":
        with torch.no_grad():
            call.run()
            call.probabilities()[:, :, TEXT:, :TEXT].sum(-1)
    else:
        with torch.no_grad():
            if name == "plain":
                call.run()
            else:
                text_mass(call.run_with_normaliser()[1], layout, WORDS)
    print(json.dumps({"seconds": time.perf_counter() - began, "mib": peak_mib() - before}))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variant", choices=VARIANTS)
    args = parser.parse_args()
    if args.variant:
        variant(args.variant)
        return
    rows = {name: [] for name in VARIANTS}
    for _ in range(args.repeats):
        for name, found in rows.items():
            out = subprocess.run(
                [sys.executable, "-m", "tests.perf.joint", "--variant", name],
                capture_output=True,
                text=True,
                check=True,
            )
            found.append(json.loads(out.stdout.splitlines()[-1]))
    medians = {
        name: {k: statistics.median(r[k] for r in found) for k in ("seconds", "mib")}
        for name, found in rows.items()
    }
    for name, row in medians.items():
        print(f"{name:9} {row['seconds']:6.2f} s {row['mib']:7.0f} MiB")
    plain, record, explicit = (medians[name] for name in ("plain", "record", "explicit"))
    for name in BASES:
        pairs = zip(rows[name], rows["plain"], strict=True)
        ratios = [one["seconds"] / alone["seconds"] for one, alone in pairs]
        print(f"time of {name} / plain", *(f"{ratio:.2f}" for ratio in sorted(ratios)))
    print(f"extra time of recording / plain {record['seconds'] / plain['seconds'] - 1:.3f}")
    memory = (record["mib"] - plain["mib"]) / (explicit["mib"] - plain["mib"])
    print(f"extra memory of recording / that of the softmax {memory:.3f}")


if __name__ == "__main__":
    main()
