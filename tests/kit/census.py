"""All pipelines of the installed diffusers that make pictures or videos from text, and what this
package does with each.

They are found by what they are: every class below ``DiffusionPipeline`` in the namespace of
diffusers whose call takes a prompt, needs nothing else, and has no length of a video or a sound;
those that diffusers keeps in ``pipelines/deprecated`` are left out, and those that it has only
beside other packages (Kolors needs sentencepiece). Pipelines that edit pictures
belong to them where the picture is not required by the signature. Those of videos have a number of
frames and need nothing but a prompt, or a picture.

    python -m tests.kit.census  # writes the tables of families/README.md
"""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import diffusers
import torch

from attncontrol.errors import ModelError
from attncontrol.families.known import family_of

ROOT = Path(__file__).parents[2]
README = ROOT / "src" / "attncontrol" / "families" / "README.md"
OF_TIME = {
    "video", "num_frames", "num_frames_per_chunk", "audio_length_in_s", "audio_end_in_s",
    "audio_duration", "duration",
}  # fmt: skip
DENOISERS = ("unet", "transformer", "prior", "decoder")

NOT_SUPPORTED = {
    "CogVideoXFunControlPipeline": "makes a video from another one",
    "DiffusionGemmaPipeline": "makes text",
    "KandinskyCombinedPipeline": "runs two pipelines, of which its decoder_pipe is taken by itself",
    "KandinskyV22CombinedPipeline": "the denoiser of the picture does not read the prompt",
    "LDMTextToImagePipeline": "has no encode_prompt, which tells the prompts",
    "LLaDA2Pipeline": "makes text",
    "LongCatAudioDiTPipeline": "makes sounds",
    "StableCascadeCombinedPipeline": "runs two pipelines, of which its prior_pipe is taken by "
    "itself",
    "ShapEPipeline": "makes shapes",
}
"""And those whose denoiser is in ``attncontrol.families.refused``."""

NEED_MORE = ("Kolors", "StableDiffusionK", "StableDiffusionXLK", "Onnx")
ADDED_KEYS = {
    "down_block_types": ("SimpleCrossAttnDownBlock2D",), "encoder_hid_dim_type": "text_proj",
}  # fmt: skip
"""What the UNet of DeepFloyd IF says of itself."""


VIDEOS_NOT_SUPPORTED = {
    "AnimateDiffControlNetPipeline": "every frame of a video is a row of its own",
    "AnimateDiffPAGPipeline": "every frame of a video is a row of its own",
    "AnimateDiffPipeline": "every frame of a video is a row of its own",
    "AnimateDiffSDXLPipeline": "every frame of a video is a row of its own",
    "AnimateDiffSparseControlNetPipeline": "every frame of a video is a row of its own",
    "AnyFlowFARPipeline": "makes a video in chunks; not described",
    "EasyAnimateControlPipeline": "fails in diffusers: its call gives encode_prompt an "
    "argument that this does not take",
    "HeliosPipeline": "not described",
    "HeliosPyramidPipeline": "not described",
    "LTXI2VLongMultiPromptPipeline": "makes a video window by window, with a text for each",
    "HunyuanVideoFramepackPipeline": "makes a video in sections; not described",
    "Kandinsky6TI2VAPipeline": "not described",
    "SanaWMPipeline": "not described",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": "frames have timesteps of their own",
    "SkyReelsV2DiffusionForcingPipeline": "frames have timesteps of their own",
    "StableVideoDiffusionPipeline": "reads no text",
}


def found():
    """Name to class."""
    return {name: cls for name, cls in _classes() if _makes_pictures(cls)}


def found_videos():
    """The same of those that make a video from text, from a picture, or from both."""
    return {name: cls for name, cls in _classes() if _makes_videos(cls)}


def _classes():
    names = [name for name in dir(diffusers) if "Pipeline" in name]
    classes = [(name, getattr(diffusers, name)) for name in names if not name.startswith(NEED_MORE)]
    return [
        (name, cls)
        for name, cls in classes
        if isinstance(cls, type)
        and issubclass(cls, diffusers.DiffusionPipeline)
        and ".deprecated." not in cls.__module__
    ]


def _arguments(cls):
    """Of a call: all, and those that it needs."""
    parameters = inspect.signature(cls.__call__).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty and p.kind in (0, 1, 3)}
    return {p.name for p in parameters}, needed - {"self"}


def _makes_pictures(cls):
    names, needed = _arguments(cls)
    return "prompt" in names and needed <= {"prompt"} and not names & OF_TIME


def _makes_videos(cls):
    names, needed = _arguments(cls)
    tells = "prompt" in names or "image" in needed
    return tells and needed <= {"prompt", "image"} and "num_frames" in names


def without_parts(kind):
    """A denoiser without parts."""
    part = object.__new__(kind)
    vars(part).update(_modules={}, _parameters={}, _buffers={})
    part._internal_dict = {"down_block_types": ()}
    return part


def stub(cls):
    """A pipeline of a class with empty parts of the classes that it asks for."""
    parts = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        kind = parameter.annotation
        kind = getattr(diffusers, kind, None) if isinstance(kind, str) else kind
        kinds = [k for k in (kind, *get_args(kind)) if isinstance(k, type)]  # or one of several
        kinds = [k for k in kinds if issubclass(k, torch.nn.Module)]
        if name in DENOISERS and kinds:
            parts[name] = without_parts(kinds[0])
            if cls.__name__.startswith("IF"):
                parts[name]._internal_dict = ADDED_KEYS
        elif name.startswith("tokenizer"):
            parts[name] = SimpleNamespace(pad_token_id=0, eos_token_id=0)
    empty = type(cls.__name__, (cls,), {"components": parts, "__module__": cls.__module__})
    pipe = object.__new__(empty)
    vars(pipe).update(parts)
    return pipe


def family_or_reason(name, cls):
    """The family of a pipeline, or None and why there is none."""
    if name in (known := NOT_SUPPORTED | VIDEOS_NOT_SUPPORTED):
        return None, known[name]
    try:
        return family_of(stub(cls)), None
    except ModelError as error:
        reason = re.search("is not supported: (.*?)\\. attncontrol", str(error))
        return None, reason[1] if reason else None


def named_in_tests():
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    here = Path(__file__).read_text("utf-8")
    return set(re.findall(r"\b\w+Pipeline\b", " ".join(t for t in texts if t != here)))


def tables(pipelines):
    """What families/README.md holds of them."""
    tested, families, refused = named_in_tests(), {}, {}
    for name, cls in pipelines.items():
        family, reason = family_or_reason(name, cls)
        if family is None:
            refused.setdefault(reason, []).append(name)
        else:
            families.setdefault(family.name, (family, []))[1].append(name)
    lines = ["| family | | tested | same denoiser, not run |", "|---|---|---|---|"]
    for name, (family, pipelines) in sorted(families.items()):
        ran = [pipeline for pipeline in pipelines if pipeline in tested]
        others = [pipeline for pipeline in pipelines if pipeline not in tested]
        lines.append(f"| {name} | {_what(family)} | {_listed(ran)} | {_listed(others)} |")
    lines += ["", "| not supported | why |", "|---|---|"]
    lines += [f"| {_listed(names)} | {reason} |" for reason, names in sorted(refused.items())]
    return "\n".join(lines) + "\n"


def _what(family):
    if isinstance(family.steering, str):
        return f"record, edit; no steering: {family.steering}"
    return "record, steer, edit"


def _listed(names):
    return ", ".join(name.removesuffix("Pipeline") for name in names)


PICTURES = "<!-- census -->\n", "<!-- end of the census -->\n"
VIDEOS = "<!-- census of videos -->\n", "<!-- end of the census of videos -->\n"


def written():
    """The README with these tables."""
    text = README.read_text("utf-8")
    for (begin, end), pipelines in ((PICTURES, found()), (VIDEOS, found_videos())):
        before, rest = text.split(begin)
        text = before + begin + tables(pipelines) + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    README.write_text(written(), "utf-8")
