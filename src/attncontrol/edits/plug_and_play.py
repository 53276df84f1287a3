"""Layout of the source by its features: Plug-and-Play (Tumanyan et al. 2023, arXiv 2211.12572), in
UNets.

    Q, K = those of the source     self-attention of the decoder, first ``attention`` T of T steps
    f    = those of the source     residual features of one of its blocks, first ``residual`` T

f is what the second convolution of a residual block adds to its shortcut. Layers are from the
second one at stride 4 of the decoder on, for SD 1/2 by default; SDXL has these strides one block
earlier: ``PlugAndPlay.preset("sdxl")``, which is ours. Every branch has its own source, as in the
original code; pnp-diffusers gives that of the empty prompt to both. It is an inverted photo there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.sites import Where
from attncontrol.attention.source import LOOK, Taken
from attncontrol.checks.arguments import Share, checked
from attncontrol.errors import SettingError

_SECOND = ("up_blocks.{}.attentions.1", "up_blocks.{}.attentions.2")
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "sd": {
            "block": "up_blocks.1.resnets.1",
            "layers": (*(name.format(1) for name in _SECOND), "up_blocks.2", "up_blocks.3"),
        },
        "sdxl": {
            "block": "up_blocks.0.resnets.1",
            "layers": (*(name.format(0) for name in _SECOND), "up_blocks.1"),
        },
    }
)


@dataclass(frozen=True)
class PlugAndPlay(Edit):
    """All images have the layout of the image ``source`` of the batch.

        with edit(pipe, PlugAndPlay()):
            photo, drawing = pipe(["a dog", "a drawing of a dog"], generator=same_seeds).images

    ``block`` is the residual block, ``layers`` are those of attention. Raises SettingError;
    SiteError where there is no such block; CouplingError if there is no such source.
    """

    source: Source = 0
    attention: Share = 0.5
    residual: Share = 0.8
    block: str = PRESETS["sd"]["block"]
    layers: tuple[str, ...] = PRESETS["sd"]["layers"]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "where", Where(kind="self", layers=self.layers))
        object.__setattr__(self, "modules", (f"{self.block}.conv2",))

    @classmethod
    @checked
    def preset(cls, name: str) -> "PlugAndPlay":
        """Raises SettingError."""
        if name not in PRESETS:
            raise SettingError(f"{name!r} is no preset; there are {', '.join(PRESETS)}")
        return cls(**PRESETS[name])

    def takes(self, call: AttentionCall, now: Moment) -> Taken | None:  # noqa: ARG002
        return LOOK if now.step.index < steps_in(self.attention, now.step.total) else None

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        taken = self.takes(call, now)
        return now.source(call, self.source, *taken) if taken else call

    def passed(self, name: str, inputs: Any, output: Any, now: Moment) -> Any:  # noqa: ARG002
        late = now.step.index >= steps_in(self.residual, now.step.total)
        return output if late else now.output_of(self.source, name, output)
