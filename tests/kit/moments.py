"""Moments of a run that is none, and what edits make of a call."""

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Seen
from attncontrol.attention.moment import Moment, Step
from attncontrol.prompts.text import Text


def moment(
    layout,
    *,
    images=1,
    branches=("cond",),
    index=0,
    total=1,
    prompts=None,
    read=None,
    purpose="own",
):
    """That of a call with the rows of ``images`` pictures in each branch."""
    step = Step(index, total, 1.0, 1.0, {})
    text = Text(prompts or (None,) * images, read or (lambda _: ()))
    return Moment(step, layout, purpose, branches, tuple(range(images)), text)


def output_of(result):
    """The output of an edit that returned a call or an output."""
    if isinstance(result, AttentionCall):
        return result.run()
    return result.output if isinstance(result, Seen) else result
