"""A pipeline whose call takes edits and losses: mixed into a class of diffusers by the files of
``pipelines/``, which ``from_pretrained(..., custom_pipeline=...)`` loads."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from attncontrol import losses
from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where
from attncontrol.batch.edit_methods import edits_of
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.verbs import edit as editing
from attncontrol.verbs.places import On
from attncontrol.verbs.steer import Trace, steer


class Controlled:
    """``trace`` holds the losses of the last call, None if it had no objective."""

    trace: Trace | None = None

    def __call__(
        self,
        prompt: str | list[str],
        *args: Any,
        edit: str | Edit | Sequence[On] | None = None,
        objective: str | Objective | None = None,
        words: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        boxes: Mapping[str, Any] | None = None,
        where: Where | None = None,
        descent: Descent | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the class of diffusers, with what ``edit`` and ``steer`` take: ``edit`` an object of
        ``attncontrol.edits``, a list of ``On``, or the name of a method that takes the first
        prompt's picture for its source, such as "p2p"; ``objective`` one of ``attncontrol.losses``
        or the name of a method, made of ``words`` (None: nouns of the prompt) or of ``boxes`` (word
        -> (left, top, right, bottom) in 0 .. 1). ``where`` and ``descent`` are the objective's.
        """
        guide = losses.method(objective, words, boxes) if isinstance(objective, str) else objective
        with ExitStack() as stack:
            self.trace = None
            if edit is not None:
                edits = edits_of(edit, 0) if isinstance(edit, str) else edit
                stack.enter_context(editing.edit(self, edits))
            if guide is not None:
                context = steer(self, guide, where=where, descent=descent)
                self.trace = stack.enter_context(context)
            return super().__call__(prompt, *args, **kwargs)  # type: ignore[misc]  # diffusers'
