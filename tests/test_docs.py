"""What the tables of the documents say is so."""

from pathlib import Path

import diffusers
import pytest
from diffusers.schedulers import KarrasDiffusionSchedulers

from attncontrol.running.solvers import require_known_steps

FAMILIES = Path(__file__).parents[1] / "src" / "attncontrol" / "families" / "README.md"
CALLED = {
    "DPMSolverMultistep": "DPM++ multistep", "DPMSolverSinglestep": "single-step",
    "DPMSolverSDE": "SDE", "DEISMultistep": "DEIS", "UniPCMultistep": "UniPC", "EDMEuler": "EDM",
    "EulerAncestralDiscrete": "ancestral", "KDPM2AncestralDiscrete": "ancestral",
    "SASolver": "SA", "FlowMatchHeunDiscrete": "Heun", "FlowMatchLCM": "LCM",
    "EDMDPMSolverMultistep": "EDM",
}  # fmt: skip
OTHERS = (
    "SASolver", "LCM", "TCD", "IPNDM", "EDMDPMSolverMultistep", "FlowMatchHeunDiscrete",
    "FlowMatchLCM",
)  # fmt: skip
NAMES = [*(kind.name.removesuffix("Scheduler") for kind in KarrasDiffusionSchedulers), *OTHERS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_schedulers_of_diffusers_can_be_steered_and_are_in_the_table(name):
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
    require_known_steps(getattr(diffusers, f"{name}Scheduler")())
    rows = FAMILIES.read_text("utf-8").splitlines()
    (row,) = (row for row in rows if row.startswith("| Schedulers for `steer`"))
    assert CALLED.get(name, name.removesuffix("Discrete")) in row
