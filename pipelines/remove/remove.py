"""A block of modular pipelines that closes what the one of ``pipelines/install`` opened."""

from diffusers.modular_pipelines import ModularPipelineBlocks, OutputParam

from attncontrol.running.blocks import close_in_run


class RemoveBlock(ModularPipelineBlocks):  # type: ignore[misc]
    """Goes after the blocks that denoise; after those that decode where an edit changes pictures.

    If a block fails before this one, the next run or context closes what is open, before it
    computes anything."""

    @property
    def description(self) -> str:
        return "Closes what the block install opened, and puts what it gave into the outputs."

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        what = "The maps of record, the trace of steer ...; a list of them if control was one"
        return [OutputParam("attention", description=what)]

    def __call__(self, components, state):  # type: ignore[no-untyped-def]
        state.set("attention", close_in_run(components))
        return components, state
