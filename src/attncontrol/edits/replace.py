"""Word swap of prompt-to-prompt (Hertz et al. 2022, arXiv 2208.01626): the layout of the source.

    A'  = A_source          cross-attention, in the first ``cross`` T of the T steps
    A'  = A_source          self-attention of at most ``cells`` queries, in the first ``among`` T
    Q, K of the picture = those of the source          joint attention, in the first ``joint`` T

A of the source with V of the target is the kernel with Q and K of the source. Only conditional rows
change, as officially; the shares 0.8 and 0.4 are those of the official notebook, which replaces
self-attention up to 16 x 16 (32 x 32 in its version for real pictures, followed here). The form for
joint attention is that of Shin et al. 2025 (arXiv 2508.07519): never the text's Q and K, first 20 %
of the steps.
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where
from attncontrol.edits.merge import require_share
from attncontrol.errors import WordError


@dataclass(frozen=True)
class Replace(Edit):
    """Every image looks where the image ``source`` of the batch looks; its prompt has as many
    tokens.

        with edit(pipe, Replace()):
            cat, dog = pipe(["a cat and a car", "a dog and a car"], generator=same_seeds).images

    Raises SettingError; WordError in cross-attention if the prompts differ in length; CouplingError
    if the pipeline makes no image of that number.
    """

    source: int = 0
    cross: float = 0.8
    among: float = 0.4
    joint: float = 0.2
    cells: int = 32 * 32
    where = Where(kind=("self", "cross", "joint"))

    def __post_init__(self) -> None:
        for name in ("cross", "among", "joint"):
            require_share(name, getattr(self, name))

    def acts(self, progress: float) -> bool:
        return progress <= max(self.cross, self.among, self.joint)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        kind = call.site.kind
        share = {"self": self.among, "cross": self.cross, "joint": self.joint}[kind]
        large = kind == "self" and call.query.shape[2] > self.cells
        rows = now.rows("cond")
        late = now.step.index >= int(share * now.step.total)
        if late or large or rows.stop == rows.start:
            return call
        if kind == "cross":
            self._require_equal_lengths(now)
        source = now.source(call, self.source, "picture")
        return call.with_rows(rows, source.replace(value=call.value))

    def _require_equal_lengths(self, now: Moment) -> None:
        counts = [
            sum(not token.special for token in now.text.tokens(image))
            for image in range(len(now.text.prompts))
        ]
        for image in now.images:
            if counts[image] != counts[self.source]:
                raise WordError(
                    f"Replace needs prompts of equal length, but {now.text.prompts[image]!r} has "
                    f"{counts[image]} tokens and the source {now.text.prompts[self.source]!r} "
                    f"{counts[self.source]}; swap words of as many tokens"
                )
