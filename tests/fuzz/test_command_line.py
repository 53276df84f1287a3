"""Command lines of every command, plausible and hostile: what is right reaches the model, what is
wrong is refused in one message, with exit code 2, before a model is loaded or anything is written.

The seam is ``DiffusionPipeline.from_pretrained``: a command line that comes so far with a model
that exists is accepted.
"""

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from attncontrol.cli import app
from attncontrol.maps.store import save
from tests.fuzz import budget
from tests.kit.records import UP, made

ACCEPTED = 77
OWN = """
from attncontrol import Objective
class Loss(Objective):
    def __call__(self, maps):
        return maps.subjects
class Half(Objective):
    def loss(self, maps):
        return maps.subjects
class Broken:
    def __init__(self):
        raise RuntimeError("a fault of the user")
def score(pictures, prompts):
    return [0.0 for _ in pictures]
value = 3
"""


@dataclass(frozen=True)
class Value:
    """Of an option: what is typed, and whether that alone is right."""

    typed: str
    right: bool = True


@dataclass(frozen=True)
class Choice:
    """Values of an option."""

    good: tuple[Value, ...]
    bad: tuple[Value, ...]

    def drawn(self) -> st.SearchStrategy[Value]:
        """Wrong ones come once in ten times."""
        rare = st.integers(0, 9).map(lambda n: self.bad if n == 6 else self.good)
        return rare.flatmap(st.sampled_from)


def of(right: str, wrong: str, between: str = "|") -> Choice:
    """From two lists."""
    good = tuple(Value(text) for text in right.split(between))
    return Choice(good, tuple(Value(text, False) for text in wrong.split(between)))


BIG = str(2**64)
SEEDS = of(
    "0|0-3|1,5| 3 |18446744073709551615|4-4", f"|-1|3-1|a|1,,2|1.5|0-|0-99999999999|{BIG}|0,0|²"
)
SEED = of("0|5|18446744073709551615", f"-1|x||1.5|nan|{BIG}")
STEPS = of("1|2|1000", "0|-1|1001|x||1.5|1e3|999999999999999999999999")
GUIDANCE = of("0|1|2.5|7|1e2", "nan|inf|-inf|-1|x||1e30|1e400")
PIXELS = of("64|128|256", "0|-8|65|x||1e3|8.5|800000000")
STEP_SIZE = of("0|1|2.5|20|6%|0.5%", "-1|nan|inf|x||1e400|%|-6%|6%%")
UNIT = of("0|0.5|1", "-0.1|1.1|nan|inf|x|")
SCALE = of("0|1|3.5", "-1|nan|inf|x||1e30")
COUNT = of("1|2|8", "0|-1|x||1.5|nan|99999999999999999999")
DTYPE = of("float32|float16|bfloat16", "int8|float64||FLOAT32|[/b]")
DEVICE = of("cpu", "cuda|cuda:99|mps|GPU 1||cpu:x|meta!|:0|cpu:99999999999999999999|xpu|tpux")
MODEL = of(
    "sprites|sprites-sd3|sprites-flux|sprites-pixart",
    "|no/such/model|[/b]|a b|.|..|https://x.y/z|\ud800|../../etc",
)
KEEP = of("step|head|step,head|head,step", "x|step,x|step;head")
ENCODING = of("float32|float16|bfloat16|sqrt8", "int8||float64")
SUITE = of("pairs|triples|colors|attributes|four", "|x|PAIRS")
MAPS_OUT = of("new.safetensors", "|folder.safetensors|file/x.safetensors|photo.png")
METHOD = of(
    "auto|attend-and-excite|syngen|conform|plain|boxdiff|placement|own:Loss",
    "magic||[/b]|own:Nothing|own:Broken|own:Half|own:value|nothing:Loss|os.path:|:x|"
    "a b:c|own:own:own",
)
OBJECTIVE = of("quality|shape|redness|own:score", "beauty||own:nothing|own:value|nothing:x|:|own:")
KIND = of("self|joint|cross", "x|SELF| self")
TIMESTEP = of("0|300|1000", "-1|1001|nan|inf|x|")
STRENGTHS = of("0|0,0.5,1|0,1", "|1|0,2|0,nan|0,x|0,-1|0.5,0")
PROMPT = of(
    "a cat and a frog;a red cat and a blue frog;a cat [/b] and a frog;a :cat: and a frog [red];"
    "two cats, one cat and a frog <b>;a cat\nand a frog;# a cat and a frog",
    ";   ;\ud800 a cat and a frog;\n;\t;a \x1b[31mcat and a frog;a cat and a frog\x9b",
    ";",
)
TO = of(  # of no prompt, which would change nothing
    "a dog and a frog;a green cat and a frog;a dog [/b];# a dog",
    ";   ;\ud800 a dog;\n;\t;a \x1b[31mdog;a dog\x9b",
    ";",
)
WORDS = of("cat|cat,frog|frog, cat|CAT", "|,|mouse|cat,,frog|cat,mouse|cat#9|cat#x|#|\ud800")
GROUPS = of("cat|cat,frog|frog , cat", "|,|+|mouse|cat+|cat,mouse|+cat|cat#0")
BOX = of(
    "cat=0,0,0.5,1|frog=0.5,0,1,1|cat=0.1,.2,0.9,0.8",
    "|cat|cat=|=0,0,1,1|cat=0,0,1|cat=0,0,64,64|cat=1,0,0,1|cat=0,0,nan,1|mouse=0,0,1,1|"
    "cat=0,0,1,1,1",
)
FOLDER = of(
    "new|new/deeper|folder/[b]x[/b]|\u732b",
    "|folder|new.png|new.json|file|file/below|" + "x" * 300 + "|/proc/no/x|\ud800|new\x07",
)
RECORD_OUT = of(
    "new.safetensors|new/x.safetensors|new",
    "|folder|file|new.png|file/x.safetensors|folder.safetensors|" + "x" * 300,
)
PICTURE_OUT = of(
    "strip.png|new/strip.jpg", "|strip|strip.gif|file/x.png|folder.png|" + "x" * 300 + ".png"
)
EXPORT_OUT = of(
    "new.npz|new.csv|new/x.npz",
    "|folder|file|photo.png|new.out|new|new.zarr.gz|file/x.npz|"
    + "x" * 300
    + ".npz|run.safetensors",
)
PAGE_OUT = of(
    "new.html|new/x.htm",
    "|folder|file|photo.png|new.out|new|file/x.html|" + "x" * 300 + ".html|run.safetensors",
)
HEADS = of(
    "heads.json",
    "missing.json|folder||file|photo.png|" + "|".join(f"heads{i}.json" for i in range(17)),
)
PROMPTS = of(
    "prompts.txt|bom.txt|utf16.txt",
    "missing|folder||empty.txt|binary|comments.txt|photo.png|surrogate.txt|long.txt",
)
PICTURE = of(
    "photo.png|gray16.png|rotated.jpg|alpha.png|tiny.png",
    "missing.png|file|folder||\ud800|[|missing/*.png|"
    + "x" * 300
    + "|prompts.txt|broken.png|cut.jpg|bomb.png|empty.png",
)
RECORD = of("run.safetensors", "missing|file|folder||photo.png|cut.safetensors|heads.json")
FORMAT = of("npz|csv", "|x|NPZ|gif")
STEP_SIZES = of(
    "syngen=2|conform=0|syngen=6%", "|syngen|syngen=|syngen=nan|syngen=-1|=2|magic=1|syngen=1=2"
)
METHODS = of(
    "syngen,conform|conform,syngen|conform, syngen",
    "|,|syngen,magic|boxdiff|own:Nothing|plain,x|syngen,syngen,conform",
)


@dataclass(frozen=True)
class Command:
    """What is typed in order, and the options of a command with their values; ``needs`` are always
    typed."""

    name: str
    positional: dict[str, Choice] = field(default_factory=dict)
    options: dict[str, Choice] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    rule: Callable[[dict[str, Value]], bool] = lambda _: True


def whole(given: dict[str, Value]) -> bool:
    """Options that must fit each other, of ``generate``, ``check`` and ``record``."""
    method = given.get("--method", Value(given["default"].typed)).typed
    boxes = "--box" in given
    if boxes != (method in ("boxdiff", "placement")):
        return False
    if "--words" in given and method.startswith("own:") and given["default"].typed != "plain":
        return False  # that class takes no words
    if "--words" in given and boxes and given["default"].typed != "plain":
        return False
    return negative(given) and effective(given, plain=method == "plain")


def steered(given: dict[str, Value]) -> bool:
    """Options of ``check``, which asks for a method."""
    return given.get("--method", given["default"]).typed != "plain" and whole(given)


def effective(given: dict[str, Value], plain: bool) -> bool:
    """Nothing was given that does nothing."""
    heads, scale = "--heads" in given, given.get("--guidance", Value("2")).typed
    if plain and ("--step-size" in given or ("--compare" in given and not heads)):
        return False
    defaults = {} if heads else {"--u": 1, "--heads-scale": 3}
    idle = [name for name in defaults.keys() & given.keys()
            if float(given[name].typed) != defaults[name]]  # fmt: skip
    return not idle and not ("--uncond" in given and float(scale) <= 1)


def fitting(given: dict[str, Value]) -> bool:
    """The format of an export and the ending of its file."""
    if not {"--format", "--out"} <= given.keys():
        return True
    return given["--out"].typed.endswith(f".{given['--format'].typed}")


def ranked(given: dict[str, Value]) -> bool:
    """What ``sites`` needs a score for."""
    return "--score" in given or not {"--heads", "--scenes"} & given.keys()


def negative(given: dict[str, Value]) -> bool:
    """A negative prompt needs guidance."""
    scale = given.get("--guidance", Value("2")).typed
    return "--negative" not in given or float(scale) > 1


MODELS = {"--model": MODEL, "--device": DEVICE, "--dtype": DTYPE}
CALL = {"--steps": STEPS, "--guidance": GUIDANCE, "--height": PIXELS, "--width": PIXELS,
        "--negative": of("red|", "\ud800")}  # fmt: skip
COMMANDS = [
    Command(
        "generate", {"prompt": PROMPT},
        {**MODELS, **CALL, "--method": METHOD, "--words": GROUPS, "--box": BOX, "--seeds": SEEDS,
         "--out": FOLDER, "--step-size": STEP_SIZE, "--heads": HEADS, "--heads-scale": SCALE,
         "--u": UNIT, "--batch": COUNT},
        flags=("--compare", "--json"), rule=whole,
    ),
    Command(
        "generate", {},
        {**MODELS, **CALL, "--prompts": PROMPTS, "--seeds": SEEDS, "--out": FOLDER},
        needs=("--prompts",), rule=negative,
    ),
    Command(
        "check", {"prompt": PROMPT},
        {**MODELS, **CALL, "--method": METHOD, "--words": GROUPS, "--box": BOX, "--seeds": SEEDS,
         "--step-size": STEP_SIZE, "--batch": COUNT},
        flags=("--json",), rule=steered,
    ),
    Command(
        "record", {"prompt": PROMPT},
        {**MODELS, **CALL, "--method": METHOD, "--words": WORDS, "--box": BOX, "--seed": SEED,
         "--out": RECORD_OUT, "--step-size": STEP_SIZE, "--keep": KEEP, "--encoding": ENCODING},
        flags=("--uncond", "--json"), rule=whole,
    ),
    Command(
        "edit", {"prompt": PROMPT},
        {**MODELS, **CALL, "--to": TO, "--seeds": SEEDS, "--out": FOLDER,
         "--method": of("replace|p2p@0.5|layout+blend", "|x|REPLACE|p2p@|p2p@2|@1|+")},
        needs=("--to",), flags=("--compare", "--json"), rule=negative,
    ),
    Command(
        "maps", {"picture": PICTURE},
        {**MODELS, "--prompt": PROMPT, "--words": WORDS, "--timestep": TIMESTEP, "--seed": SEED,
         "--keep": KEEP, "--out": MAPS_OUT,
         "--limit": of("1|100", "-1|nan|inf|x||1e6"),
         "--reading": of("mean|along-edges", "|x|edges")},
        needs=("--prompt",),
    ),
    Command(
        "export", {"record": RECORD}, {"--format": FORMAT, "--out": EXPORT_OUT},
        flags=("--json",), rule=fitting,
    ),
    Command("inspect", {"record": RECORD}, {"--out": PAGE_OUT}, flags=("--json",)),
    Command("parse", {"prompt": PROMPT}, flags=("--json",)),
    Command("tokens", {"prompt": PROMPT}, {"--model": MODEL, "--device": DEVICE}),
    Command("sites", {}, {**MODELS, "--scenes": COUNT}, flags=("--score", "--heads", "--json"),
            rule=ranked),
    Command(
        "bench", {},
        {**MODELS, "--suite": SUITE, "--methods": METHODS, "--seeds": SEEDS,
         "--every": COUNT, "--step-size": STEP_SIZES, "--refinements": of("0|3", "-1|x||nan"),
         "--batch": COUNT, "--out": FOLDER},
    ),
    Command(
        "heads search", {"prompt": PROMPT},
        {**MODELS, "--objective": OBJECTIVE, "--seeds": SEEDS, "--rounds": COUNT, "--top-k": COUNT,
         "--kind": KIND, "--layers": of("mid_block|a,b", "|,|a,,b"), "--scale": SCALE, "--u": UNIT,
         "--guidance": GUIDANCE, "--batch": COUNT, "--out": FOLDER},
        flags=("--halving", "--json"),
    ),
    Command(
        "heads strip", {"prompt": PROMPT},
        {**MODELS, "--heads": HEADS, "--objective": OBJECTIVE,
         "--seeds": of("0-3|1,5", f"|-1|0|3-1|a|{BIG}|0,0"), "--u": STRENGTHS, "--scale": SCALE,
         "--guidance": GUIDANCE, "--steps": STEPS, "--out": PICTURE_OUT},
        needs=("--heads",), flags=("--json",),
    ),
]  # fmt: skip


def line_of(command: Command, given: dict[str, Value]) -> list[str]:
    typed = command.name.split()
    for name, value in given.items():
        typed += [name, value.typed] if name.startswith("-") else [value.typed]
    return typed


def each_mistake() -> Iterator[tuple[str, list[str]]]:
    """Every wrong value of every option of every command, with nothing else wrong."""
    for command in COMMANDS:
        every = command.positional | command.options
        always = [*command.positional, *command.needs]
        for name, choice in every.items():
            given = {each: every[each].good[0] for each in dict.fromkeys([*always, name])}
            if name == "--box":
                given["--method"] = Value("boxdiff")
            for value in choice.bad:
                yield name, line_of(command, given | {name: value})


@st.composite
def lines(draw: st.DrawFn) -> tuple[list[str], bool]:
    """A command line, and whether it is right."""
    command = draw(st.sampled_from(COMMANDS))
    given = {name: draw(values.drawn()) for name, values in command.positional.items()}
    chosen = (
        draw(st.sets(st.sampled_from(sorted(command.options)), max_size=4))
        if command.options
        else set()
    )
    for name in dict.fromkeys([*command.needs, *filter(None, chosen)]):
        given[name] = draw(command.options[name].drawn())
    typed = line_of(command, given)
    flags = draw(st.lists(st.sampled_from(command.flags), unique=True)) if command.flags else []
    typed += flags
    right = all(value.right for value in given.values())
    if draw(st.integers(0, 19)) == 0:
        typed.append(draw(st.sampled_from(["--nothing", "--seeds", "extra words", "-x", "--out="])))
        right = right and command.name == "heads search" and typed[-1] == "extra words"
    default = Value("plain" if command.name == "record" else "attend-and-excite")
    given |= {"default": default} | {flag: Value("") for flag in flags}
    return typed, right and command.rule(given)


HEAD = "mid_block.attentions.0.transformer_blocks.0.attn1"
BROKEN_HEADS = [
    "", "{", "[]", "{}", "null", "3", '"heads"', '{"heads": []}', '{"heads": null}', '{"heads": 3}',
    '{"heads": [1]}', '{"heads": [["a"]]}', f'{{"heads": [["{HEAD}", -1]]}}',
    f'{{"heads": [["{HEAD}", 1.5]]}}', f'{{"heads": [["{HEAD}", true]]}}', "[" * 100_000,
    f'{{"heads": [["{HEAD}", "1"], [3, 1]]}}',
]  # fmt: skip


def furnish(folder: Path) -> None:
    """The files that command lines name."""
    for name in ("folder", "folder.safetensors", "folder.png"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "mine.txt").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "own.py").write_text(OWN)
    (folder / "heads.json").write_text(json.dumps({"heads": [[HEAD, 0], [HEAD, 1]]}))
    for i, text in enumerate(BROKEN_HEADS):
        (folder / f"heads{i}.json").write_text(text)
    prompts = "a cat\na red frog and a dog\n\n"
    for name, data in {
        "prompts.txt": prompts.encode(), "bom.txt": prompts.encode("utf-8-sig"),
        "utf16.txt": prompts.encode("utf-16"), "empty.txt": b"\n \n", "binary": bytes(range(256)),
        "comments.txt": b"# only\n# this\n", "surrogate.txt": b"a cat \xed\xa0\x80\n",
        "long.txt": b"a cat " * 500_000,
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    pictures(folder)
    save(made({UP: torch.rand(1, 1, 2, 2, 4, 6, 3)}), folder / "run.safetensors")
    whole = (folder / "run.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])


BOMB = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)  # 200 MB of one bit per pixel


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pictures(folder: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8))
    noise.save(folder / "photo.png")
    noise.convert("RGBA").save(folder / "alpha.png")
    Image.new("L", (3, 2)).save(folder / "tiny.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(folder / "gray16.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "rotated.jpg", exif=exif)
    (folder / "cut.jpg").write_bytes((folder / "rotated.jpg").read_bytes()[:2000])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (folder / "empty.png").write_bytes(b"")
    (folder / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", BOMB) + chunk(b"IDAT", b"")
    )


def tree(folder: Path) -> dict[str, int | None]:
    return {
        str(path.relative_to(folder)): path.stat().st_size if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.parts[-1] != "__pycache__" and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with files of all kinds, made current; its files; no model is loaded."""
    folder = tmp_path_factory.mktemp("place")
    furnish(folder)
    load = diffusers.DiffusionPipeline.from_pretrained

    def stop(model, **options):
        if (Path(model) / "model_index.json").exists():
            raise SystemExit(ACCEPTED)
        return load(model, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(diffusers.DiffusionPipeline, "from_pretrained", stop)
        patch.syspath_prepend(folder)
        yield folder, tree(folder)


def fault(typed: list[str], right: bool, folder: Path, before: dict[str, int | None]) -> str | None:
    """What is wrong with the outcome of a command line; None if it is as promised."""
    result = CliRunner().invoke(app, typed)
    after = tree(folder)
    for name in sorted(after.keys() - before.keys(), reverse=True):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    said = " ".join(result.stderr.replace("\u2502", " ").split())
    if result.exception and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {result.exception}"[:300]
    if "Traceback" in said or ("ATTNCONTROL_TRACEBACK" in said and "own.py" not in said):
        return f"unexpected: {said}"
    if {name: after.get(name) for name in before} != before:
        furnish(folder)
        return "something that was there has changed"
    if right and result.exit_code not in (0, ACCEPTED):
        return f"refused with {result.exit_code}: {said}"
    if not right and result.exit_code != (1 if "own.py, line" in said else 2):
        return f"ended with {result.exit_code}: {said}"
    if not right and (after != before or not said):
        return "refused, but written" if said else "refused without a word"
    return None


@given(lines())
@budget(50)
def test_command_lines(place, line):
    typed, right = line
    assert fault(typed, right, *place) is None, typed


@given(st.sampled_from(list(each_mistake())))
@budget(30)
def test_single_mistakes(place, mistake):
    """Nothing else is wrong: the message is about this option."""
    name, typed = mistake
    assert fault(typed, False, *place) is None, typed
    said = CliRunner().invoke(app, typed).stderr.lower()
    hints = (name.strip("-"), "own.py", "--limit", "path", "record")
    assert any(hint in said for hint in hints), (typed, said)
