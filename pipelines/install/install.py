"""A block of modular pipelines that opens ``record``, ``steer``, ``edit`` or ``perturb`` for a run;
``pipelines/remove`` has the one that closes it.

    load = partial(ModularPipelineBlocks.from_pretrained, trust_remote_code=True)
    blocks = FluxAutoBlocks().get_workflow("text2image")
    blocks.sub_blocks.insert("install", load("pipelines/install"), 0)
    blocks.sub_blocks.insert("remove", load("pipelines/remove"), len(blocks.sub_blocks))
    pipe = blocks.init_pipeline(MODEL)
    pipe.load_components()
    state = pipe("a cat and a dog", control=lambda pipe: record(pipe, ["cat", "dog"]))
    state.get("attention").show("cat")
"""

from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks

from attncontrol import record
from attncontrol.running.blocks import open_in_run


class InstallBlock(ModularPipelineBlocks):  # type: ignore[misc]
    """Goes before the blocks that read the prompt, whose text encoders are listened to."""

    @property
    def description(self) -> str:
        return "Opens record, steer, edit or perturb of attncontrol for the blocks that follow."

    @property
    def inputs(self) -> list[InputParam]:
        what = (
            "What makes a context of the pipeline, such as `lambda pipe: record(pipe, ['cat'])`, "
            "or a list of several; all words are recorded if it is left out"
        )
        return [InputParam("control", description=what)]

    def __call__(self, components, state):  # type: ignore[no-untyped-def]
        open_in_run(components, self.get_block_state(state).control or record)
        return components, state
