"""Denoisers that are known and cannot be described, and why."""

from collections.abc import Mapping

REFUSED: Mapping[str, str] = {
    "Cosmos3OmniTransformer": "it reads the prompt itself, without a text encoder whose ids could "
    "be compared",
    "StableCascadeUNet": "it knows the text by features of the whole, which have no words: give "
    "the pipeline of the prior, which reads them",
    "PriorTransformer": "it makes the features of a picture, not the picture",
    "LatteTransformer3DModel": "every frame of a video is a row of its own",
    "LTX2VideoTransformer3DModel": "of its pipelines those that make a video from text, "
    "and from pictures of frames, are described; others have other videos in its sequence",
    "UNet2DConditionModel": "its pipeline has no tokenizer, or its picture reads no text "
    "(Kandinsky 2.2)",
}
"""Name of the class of a denoiser to a reason, which follows "it is not supported: "."""
