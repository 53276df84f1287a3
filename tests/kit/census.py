"""All text-to-image pipelines of the installed diffusers, and what this package does with each.

They are found by what they are: every class below ``DiffusionPipeline`` in the namespace of
diffusers whose call takes a prompt, needs nothing else, and has no length of a video or a sound;
those that diffusers keeps in ``pipelines/deprecated`` are left out, and those that it has only
beside other packages (Kolors needs sentencepiece). Pipelines that edit pictures
belong to them where the picture is not required by the signature.

    python -m tests.kit.census  # writes the tables of families/README.md
"""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import diffusers
import torch

from attncontrol.errors import ModelError
from attncontrol.families import unknown
from attncontrol.families.known import family_of

ROOT = Path(__file__).parents[2]
README = ROOT / "src" / "attncontrol" / "families" / "README.md"
OF_TIME = {
    "video", "num_frames", "num_frames_per_chunk", "audio_length_in_s", "audio_end_in_s",
    "audio_duration", "duration",
}  # fmt: skip
DENOISERS = ("unet", "transformer", "prior", "decoder")

NOT_SUPPORTED = {
    "BriaFibo2Pipeline": "not described",
    "CogVideoXFunControlPipeline": "makes a video from another one",
    "DiffusionGemmaPipeline": "makes text",
    "DreamLiteMobilePipeline": "not described",
    "DreamLitePipeline": "not described",
    "JoyImageEditPipeline": "not described",
    "JoyImageEditPlusPipeline": "not described",
    "KandinskyCombinedPipeline": "runs two pipelines, of which its decoder_pipe is taken by itself",
    "KandinskyV22CombinedPipeline": "the denoiser of the picture does not read the prompt",
    "LDMTextToImagePipeline": "has no encode_prompt, which tells the prompts",
    "LLaDA2Pipeline": "makes text",
    "LongCatAudioDiTPipeline": "makes sounds",
    "QwenImageLayeredPipeline": "makes several layers of a picture at once",
    "ShapEPipeline": "makes shapes",
    "StableDiffusionInstructPix2PixPipeline": "has three rows for every picture",
    "StableDiffusionXLInstructPix2PixPipeline": "has three rows for every picture",
    "HunyuanImageRefinerPipeline": "makes a picture finer; not described",
    "ZImageOmniPipeline": "orders its sequence in another way where it is given pictures",
}
"""And those whose denoiser is in ``attncontrol.families.refused``."""

NEED_MORE = ("Kolors", "StableDiffusionK", "StableDiffusionXLK", "Onnx")
BY_SHAPE = {"LuminaPipeline"}
ADDED_KEYS = {
    "down_block_types": ("SimpleCrossAttnDownBlock2D",), "encoder_hid_dim_type": "text_proj",
}  # fmt: skip
"""What the UNet of DeepFloyd IF says of itself."""


def found():
    """Name to class."""
    names = [name for name in dir(diffusers) if "Pipeline" in name]
    classes = {name: getattr(diffusers, name) for name in names if not name.startswith(NEED_MORE)}
    return {name: cls for name, cls in classes.items() if _makes_pictures(cls)}


def _makes_pictures(cls):
    if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
        return False
    parameters = inspect.signature(cls.__call__).parameters.values()
    required = {p.name for p in parameters if p.default is p.empty and p.kind in (0, 1, 3)}
    names = {p.name for p in parameters}
    return (
        "prompt" in names
        and required <= {"self", "prompt"}
        and not names & OF_TIME
        and ".deprecated." not in cls.__module__
    )


def stub(cls):
    """A pipeline of a class with empty parts of the classes that it asks for."""
    parts = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        kind = parameter.annotation
        kind = getattr(diffusers, kind, None) if isinstance(kind, str) else kind
        if name in DENOISERS and isinstance(kind, type) and issubclass(kind, torch.nn.Module):
            part = object.__new__(kind)
            vars(part).update(_modules={}, _parameters={}, _buffers={})
            part._internal_dict = {"down_block_types": ()}
            if cls.__name__.startswith("IF"):
                part._internal_dict = ADDED_KEYS
            parts[name] = part
        elif name.startswith("tokenizer"):
            parts[name] = SimpleNamespace(pad_token_id=0, eos_token_id=0)
    empty = type(cls.__name__, (cls,), {"components": parts, "__module__": cls.__module__})
    pipe = object.__new__(empty)
    vars(pipe).update(parts)
    return pipe


def family_or_reason(name, cls):
    """The family of a pipeline, or None and why there is none."""
    if name in BY_SHAPE:
        return unknown.FAMILY, None
    if name in NOT_SUPPORTED:
        return None, NOT_SUPPORTED[name]
    try:
        return family_of(stub(cls)), None
    except ModelError as error:
        reason = re.search("is not supported: (.*?)\\. attncontrol", str(error))
        return None, reason[1] if reason else None


def named_in_tests():
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    here = Path(__file__).read_text("utf-8")
    return set(re.findall(r"\b\w+Pipeline\b", " ".join(t for t in texts if t != here)))


def tables():
    """What families/README.md holds."""
    tested, families, refused = named_in_tests(), {}, {}
    for name, cls in found().items():
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
    if family.name == "unknown":
        return "cross-attention by its shapes, without guidance"
    if isinstance(family.steering, str):
        return f"record, edit; no steering: {family.steering}"
    return "record, steer, edit"


def _listed(names):
    return ", ".join(name.removesuffix("Pipeline") for name in names)


MARKS = "<!-- census -->\n", "<!-- end of the census -->\n"


def written():
    """The README with these tables."""
    before, rest = README.read_text("utf-8").split(MARKS[0])
    return before + MARKS[0] + tables() + MARKS[1] + rest.split(MARKS[1])[1]


if __name__ == "__main__":
    README.write_text(written(), "utf-8")
