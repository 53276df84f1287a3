"""Files of a job: what they say, and all that is wrong in them."""

import json
import subprocess
import sys

import jsonschema
import pytest
import yaml

from attncontrol.errors import JobError
from attncontrol.jobs import files
from attncontrol.jobs.files import FIELDS, read_job
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.schema import schema

HEAD = "mid_block.attentions.0.transformer_blocks.0.attn1"


def read(folder, text, name="job.yaml", defaults=()):
    """The items of a file, each as the fields that it does not leave to itself."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    job = read_job(folder / name, defaults)
    return [item.model_dump(exclude_defaults=True) for item in job.items]


def told(folder, text, name="job.yaml", defaults=()):
    """What is wrong with a file, line by line."""
    with pytest.raises(JobError) as caught:
        read(folder, text, name, defaults)
    return [str(each) for each in caught.value.wrong]


def test_three_formats_say_the_same(tmp_path):
    lines = [
        {"prompt": "a red cat and a frog", "seeds": "0-1", "method": "conform", "step_size": "6%",
         "words": "red+cat,frog", "parameters.temperature": 0.25, "steps": 20},
        {"prompt": "a cat and a frog", "seeds": 7, "method": "boxdiff", "guidance": 3.5,
         "boxes": "cat=0,0.25,0.5,1 frog=0.5,0,1,1", "record": "cat,frog", "dtype": "float16"},
    ]  # fmt: skip
    rows = (
        "prompt,seeds,method,step_size,words,parameters.temperature,steps,guidance,boxes,record,"
        'dtype\na red cat and a frog,0-1,conform,6%,"red+cat,frog",0.25,20,,,,\n\n'
        'a cat and a frog,7,boxdiff,,,,,3.5,"cat=0,0.25,0.5,1 frog=0.5,0,1,1","cat,frog",float16\n'
    )
    first = {
        "prompt": "a red cat and a frog", "method": "conform", "words": [["red", "cat"], ["frog"]],
        "step_size": "6%", "parameters": {"temperature": 0.25}, "steps": 20,
    }  # fmt: skip
    boxes = {"cat": (0.0, 0.25, 0.5, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)}
    last = {
        "prompt": "a cat and a frog", "seed": 7, "method": "boxdiff", "boxes": boxes,
        "guidance": 3.5, "dtype": "float16", "record": ["cat", "frog"],
    }  # fmt: skip
    expected = [first, first | {"seed": 1}, last]
    assert read(tmp_path, "\n".join(map(json.dumps, lines)), "job.jsonl") == expected
    assert read(tmp_path, rows, "job.csv") == expected
    assert read(tmp_path, yaml.safe_dump(lines, sort_keys=False)) == expected
    assert read(tmp_path, yaml.safe_dump({"items": lines}), "JOB.YML") == expected


def test_what_varies_varies_in_order(tmp_path):
    text = """
defaults: {seeds: 4-5, matrix: {guidance: [1, 2]}}
items:
  - prompts: [a cat, a dog]
    matrix: {method: [plain, conform], step_size: [3%], parameters.temperature: [0.5, 0.25]}
"""
    made = read(tmp_path, text)
    asked = [(m["prompt"], m["guidance"], m.get("parameters"), m["seed"]) for m in made]
    sharp, sharper = {"temperature": 0.5}, {"temperature": 0.25}
    assert asked == [
        (prompt, guidance, parameters, seed)
        for prompt in ("a cat", "a dog")
        for guidance in (1.0, 2.0)
        for parameters in (None, sharp, sharper)
        for seed in (4, 5)
    ]
    assert read_job(tmp_path / "job.yaml").repeated == 8  # of plain, which has no temperature
    assert [m["step_size"] for m in made if "parameters" in m] == ["3%"] * 16
    assert not any("step_size" in m for m in made if "method" not in m)


def test_an_entry_goes_before_the_defaults(tmp_path):
    text = """
defaults: {seeds: 0-3, steps: 20, guidance: 2, prompts: [x, y], method: auto}
items:
  - {prompt: a cat, seed: 5, steps: null}
  - {prompt: a dog, seed: 6, method: plain}
"""
    assert read(tmp_path, text, defaults=["guidance=3", "width=64"]) == [
        {"prompt": "a cat", "seed": 5, "method": "auto", "guidance": 3.0, "width": 64},
        {"prompt": "a dog", "seed": 6, "steps": 20, "guidance": 3.0, "width": 64},
    ]
    assert told(tmp_path, text, defaults=["guidance", "stps=3"]) == [
        "default 'guidance': write a default as field=value, such as steps=20",
        "stps: no such field; did you mean steps?",
    ]


def test_a_wrong_default_is_told_once(tmp_path):
    text = """
defaults:
  steps: 0
  method: conformm
items: [{prompt: a cat, method: plain}, {prompt: a dog, method: plain}, {prompt: a fox, steps: 5}]
"""
    assert told(tmp_path, text, defaults=["guidance=-1"]) == [
        "guidance: '-1': it should be greater than or equal to 0",
        "line 3, steps: 0: it should be greater than or equal to 1",
        "line 4, method: 'conformm': no such method; did you mean conform?",
    ]


def test_an_edit_comes_after_its_source_once(tmp_path):
    text = """
- {prompt: a dog, source: a cat, method: "p2p@0.5+auto", step_size: 3%, seed: 1, steps: 9}
- {prompt: a fox, source: a cat, method: replace, seed: 1, steps: 9}
- {prompt: a cat, seed: 1, steps: 9}
- {source: a cat and a frog, move: "cat=0.25,0"}
- {source: a cat and a frog, remove: frog}
- {prompt: a street, regions: "a red cat, asleep=0,0,0.5,1"}
"""
    cat, both = {"prompt": "a cat", "seed": 1, "steps": 9}, {"prompt": "a cat and a frog"}
    fox = {"prompt": "a fox", "source": "a cat", "method": "replace"}
    dog = {"prompt": "a dog", "source": "a cat", "method": "p2p@0.5+auto", "step_size": "3%"}
    box = (0.0, 0.0, 0.5, 1.0)
    steered = cat | {"method": "auto", "step_size": "3%"}
    assert read(tmp_path, text) == [
        steered, cat | dog, cat, cat | fox, both,
        both | {"source": "a cat and a frog", "method": "move", "move": ("cat", 0.25, 0.0)},
        {"prompt": "a cat", "source": "a cat and a frog", "method": "remove", "remove": "frog"},
        {"prompt": "a street", "method": "regions", "regions": {"a red cat, asleep": box}},
    ]  # fmt: skip
    job = read_job(tmp_path / "job.yaml")
    assert job.lines == (2, 2, 3, 3, 5, 5, 6, 7)
    assert job.repeated == 0


def test_a_job_of_python():
    edit = Item(prompt="a dog", source="a cat", method="p2p", model="sprites-flux", seed=3)
    job = Job.of([edit, edit])
    assert [item.prompt for item in job.items] == ["a cat", "a dog"]
    assert job.items[0] == Item(prompt="a cat", model="sprites-flux", seed=3)
    assert job.lines == (0, 0)
    assert job.repeated == 1


def test_short_and_long_forms(tmp_path):
    (tmp_path / "heads.json").write_text(json.dumps({"heads": [[HEAD, 0], [HEAD, 3]]}))
    heads = [(HEAD, 0), (HEAD, 3)]
    short = {
        "seeds": ["0-1", 8], "words": ["red+cat", ["frog"]], "method": "auto", "u": 0.5,
        "heads": str(tmp_path / "heads.json"), "lora": "owner/style=0.5,owner/other",
        "parameters": {"descent.guided": 0.25, "descent.thresholds": {"0.2": 0.5}},
    }  # fmt: skip
    made = read(tmp_path, json.dumps({"prompt": "a red cat and a frog"} | short), "job.jsonl")
    assert [m.get("seed", 0) for m in made] == [0, 1, 8]
    assert made[0]["words"] == [["red", "cat"], ["frog"]]
    assert made[0]["heads"] == heads
    assert made[0]["lora"] == [{"path": "owner/style", "scale": 0.5}, {"path": "owner/other"}]
    assert made[0]["parameters"] == short["parameters"]
    move = {"prompt": "a cat", "move": ["cat", 0.5, -0.25], "heads": None}
    assert read(tmp_path, json.dumps(move), "job.jsonl")[1]["move"] == ("cat", 0.5, -0.25)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("promt: a cat", ["promt: no such field; did you mean prompt?", "prompt: there is none"]),
        ("{prompt: a cat, steps: 0}", ["steps: 0: it should be greater than or equal to 1"]),
        ("{prompt: a cat, steps: 5000}", ["steps: 5000: it should be less than or equal to 1000"]),
        ("{prompt: a cat, seed: true}", ["seed: true is no value of it"]),
        ("{prompt: a cat, seed: 5, seeds: 1}",
         ["seed: it is given more than once: alone and as several"]),
        ("{prompt: a cat, seeds: 3-1}", ["seeds: '3-1': write seeds as 0-3,8"]),
        ("{prompt: a cat, method: conformm}",
         ["method: 'conformm': no such method; did you mean conform?"]),
        ("{prompt: a cat, source: a dog, method: p2p@2}",
         ["method: 'p2p@2': a strength is a share between 0 and 1, such as p2p@0.5"]),
        ("{prompt: a cat, source: a dog}",
         ["method: say by which method the source is edited, such as p2p"]),
        ("{prompt: a cat, method: p2p}", ["source: p2p needs it"]),
        ("{prompt: a cat, source: A, method: auto}",
         ["source: it has no effect with auto; leave it out"]),
        ("{prompt: a cat, source: a cat, method: p2p}",
         ["source: it says what the prompt says, so p2p would change nothing"]),
        ("{prompt: a cat, method: auto, words: frog}",
         ["words: 'frog' is not in the prompt 'a cat'; its words are: a, cat"]),
        ("{prompt: a cat, method: boxdiff}", ["boxes: boxdiff needs it"]),
        ("{prompt: a cat, method: boxdiff, boxes: {}}", ["boxes: boxdiff needs it"]),
        ("{prompt: a cat, method: boxdiff, boxes: 'cat=0,0,64,64'}",
         ["boxes: cat=0,0,64,64: these look like pixels; write fractions of the picture, 0 to 1"]),
        ("{prompt: a cat, method: boxdiff, boxes: {cat: [0.5, 0, 0.5, 1]}}",
         ["boxes.cat: [0.5, 0, 0.5, 1]: [0.5, 0.0, 0.5, 1.0] is no box: left < right and top < "
          "bottom"]),
        ("{prompt: a cat, step_size: 3%}",
         ["step_size: it has no effect with plain; leave it out"]),
        ("{prompt: a cat, method: auto, step_size: -1}",
         ["step_size: -1: write a number of at least 0, or a share of the picture's range, such as "
          "6%"]),
        ("{prompt: a cat, method: conform, parameters: {temprature: 1}}",
         ["parameters.temprature: conform has no such field; did you mean temperature?"]),
        ("{prompt: a cat, method: conform, parameters.temperature: -1}",
         ["parameters.temperature: -1: write a number above 0"]),
        ("{prompt: a cat, method: auto, parameters: {descent.thresholds: {x: 1}}}",
         ["parameters.descent.thresholds: {'x': 1}: write shares of the run and values, such as "
          "{0.2: 0.5}"]),
        ("{prompt: a cat, u: 0.5}", ["u: it has no effect without heads; leave it out"]),
        ("{prompt: a cat, heads: nowhere.json}",
         ["heads: nowhere.json is no result of heads search (FileNotFoundError(2, 'No such file or "
          "directory'))"]),
        ("{prompt: a cat, model: spritse}",
         ["model: 'spritse': there is no such model or folder; did you mean sprites? Use sprites, "
          "sprites-sd3, sprites-flux, sprites-pixart (bundled), a local pipeline folder or a hub "
          "id"]),
        ("{prompt: a cat, width: 8200}", ["width: 8200: it should be less than or equal to 8192"]),
        ("{prompt: a cat, lora: [{path: x.safetensors}]}",
         ["lora: 'x.safetensors': there is no such file or folder, and it is no hub id, "
          "owner/name"]),
        ("{prompt: a cat, negative: rain, guidance: 1}",
         ["negative: it has no effect with guidance 1: write one above 1"]),
        ("{prompt: a cat, matrix: {method: auto, x: [1]}}",
         ["matrix.method: 'auto': write a list of values",
          "matrix.x: nothing that a matrix varies; there are prompt, seed, model, method, words, "
          "boxes, source, regions, remove, move, step_size, heads, heads_scale, u, negative, "
          "steps, guidance, height, width, dtype, lora, record"]),
        ("{prompt: a cat, method: plain, matrix: {step_size: [3%, 6%]}}",
         ["step_size: it has no effect with any method here"]),
        ("{prompt: a cat, move: 'dog=0.5,0'}",
         ["move: 'dog' is not in the prompt 'a cat'; its words are: a, cat"]),
        ("{source: a cat, remove: cat}",
         ["remove: 'cat' cannot be left out of 'a cat', nothing would be left that stands by "
          "itself: write the prompt without it yourself"]),
        ('{prompt: "a \\x1b[31mcat"}',
         ["'a \\x1b[31mcat' holds control characters, or is no text"]),
        ("{prompt: [a, cat]}", ["prompt: ['a', 'cat']: it should be a valid string"]),
        ("a cat", ["items: 'a cat': an entry is written prompt: a cat"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told(tmp_path, entry, expected):
    found = told(tmp_path, f"items:\n- prompt: a dog\n- {entry}\n")
    assert [each.removeprefix("line 3, ").removeprefix("line 3: ") for each in found] == expected


def test_all_mistakes_are_told_at_once(tmp_path):
    lines = ["- prompt: a cat\n  steps: 0\n"] * 25
    file = tmp_path / "job.yaml"
    file.write_text("- promt: a cat\n- prompt: a cat\n  seed: -1\n" + "".join(lines))
    with pytest.raises(JobError, match=r"job\.yaml has 28 mistakes; nothing was made:\n") as caught:
        read_job(file)
    said = str(caught.value).splitlines()
    assert said[1:5] == [
        "  line 1, promt: no such field; did you mean prompt?",
        "  line 1, prompt: there is none",
        "  line 3, seed: -1: it should be greater than or equal to 0",
        "  line 5, steps: 0: it should be greater than or equal to 1",
    ]
    assert said[-1] == "  and 8 more"
    assert len(said) == 22
    assert [wrong.line for wrong in caught.value.wrong] == [1, 1, 3, *range(5, 55, 2)]


TABLES = {
    b"prompt,steps\na cat,x\n": ["line 2, steps: 'x': it should be a valid integer, unable to "
                                 "parse string as an integer"],
    b"prompt,steps\na cat,\n": None,
    b"\xef\xbb\xbfprompt,steps\r\na cat,20\r\n": None,
    "prompt,steps\na cat,20\n".encode("utf-16"): None,
    b'prompt,steps\n"a\ncat",20\na dog,0\n': ["line 4, steps: '0': it should be greater than or "
                                              "equal to 1"],
    b"prompt;steps\na cat;20\n": ["line 1: the header names no column prompt; separate columns by "
                                  "commas"],
    b"prompt,prompt\na,b\n": ["line 1, prompt: the header names it twice"],
    b"prompt,\na,b\n": ["line 1: column 2 has no name"],
    b"prompt,steps\na cat, a frog,20\n": ["line 2: 3 cells, and the header names 2; quote a cell "
                                          'with commas: "a cat, a frog"'],
    b'prompt\n"a cat\n': ["line 2: no CSV: unexpected end of data"],
    b"prompt\na caf\xe9\n": ["line 2: it is no UTF-8 text: invalid continuation byte; save it as "
                             "UTF-8"],
    b"prompt\na \x00cat\n": ["line 2: it holds a NUL: it is no text"],
    b"prompt,words\na cat,[\n": ["line 2, words: no JSON at character 2: Expecting value"],
    b"prompt\n": ["it asks for no picture"],
    b"": ["it asks for no picture"],
}  # fmt: skip


@pytest.mark.parametrize("data", TABLES)
def test_tables(tmp_path, data):
    if TABLES[data]:
        assert told(tmp_path, data, "job.csv") == TABLES[data]
    else:
        steps = {"steps": 20} if b"2\x000" in data or b"20" in data else {}
        assert read(tmp_path, data, "job.csv") == [{"prompt": "a cat"} | steps]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "a", "prompt": "b"}', "line 1: 'prompt' is there twice"),
        ('{"prompt": "a", "u": NaN}', "line 1: NaN is no number"),
        ('{"prompt": "a", "u": 1e999}', "line 1: inf is no finite number"),
        ('{"prompt": "a"', "line 1: no JSON at character 15: Expecting ',' delimiter"),
        ('{"prompt": "\\ud800"}', "line 1: '\\ud800' holds control characters, or is no text"),
        ('{"prompt": ' + "[" * 99 + "]" * 99 + "}", "line 1: it is nested more than 10 deep"),
        ("[1]", 'line 1: [1]: an entry is written {"prompt": "a cat"}'),
        ('{"prompt": "' + "a" * 10_001 + '"}', "it should have at most 10000 characters"),
    ],
)
def test_lines(tmp_path, line, expected):
    (found,) = told(tmp_path, line, "job.jsonl")
    assert found == expected or found.replace("String should", "it should").endswith(expected)


def test_lines_that_no_parser_reads(tmp_path):
    why = "no JSON that can be read: a number is too long, or it is nested too deep"
    assert told(tmp_path, "[" * 100_000 + "\n\n" + "1" * 5000, "job.jsonl") == [
        f"line 1: {why}",
        f"line 3: {why}",
    ]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "line 7: more than 5000000 values; write .jsonl"),
        ("- &a {prompt: *a}", "line 1: *a stands for nothing yet"),
        ("- !!python/object/apply:os.system [ls]",
         "line 1: tags, such as 'tag:yaml.org,2002:python/object/apply:os.system', are not read"),
        ("- prompt: !!int 3", "line 1: tags, such as 'tag:yaml.org,2002:int', are not read"),
        ("- prompt: a\n  prompt: b", "line 2: 'prompt' is there twice"),
        ("- {[a]: b}", "line 1: the name of a field is text"),
        ("- prompt: a\n---\n- prompt: b", "there are 2 documents; write one"),
        ("- prompt: 'a\n", "line 2: no YAML: found unexpected end of stream"),
        ("items: [\n" + "[" * 50, "line 2: it is nested more than 10 deep"),
        ("items: [\n" + "[" * 50_000, "line 2: no YAML: exceeded maximum nesting depth"),
        ("prompt: a cat", "line 1, prompt: there are defaults, items; entries are a list below "
         "items:"),
        ("defaults: 3\nitems: []", "line 1, defaults: 3 are no fields"),
        ("5", "5: write a list of entries, or items: and such a list"),
    ],
)  # fmt: skip
def test_yaml(tmp_path, text, expected):
    assert told(tmp_path, text)[0] == expected


def test_plain_values_of_yaml(tmp_path):
    text = (
        "- &a {prompt: a no 2019-01-01 cat, seed: 010, record: [no, 2019-01-01], lora: ~}\n- *a\n"
    )
    expected = {"prompt": "a no 2019-01-01 cat", "seed": 10, "record": ["no", "2019-01-01"]}
    assert read(tmp_path, text) == [expected]
    assert read_job(tmp_path / "job.yaml").repeated == 1


def test_limits(tmp_path, monkeypatch):
    with (tmp_path / "job.jsonl").open("wb") as file:
        file.truncate(files.LARGEST + 1)
    with pytest.raises(JobError, match=r"it is larger than 64\.0 MiB: write several jobs"):
        read_job(tmp_path / "job.jsonl")
    monkeypatch.setattr(files, "MOST", 5)
    assert told(tmp_path, '{"prompt": "a cat", "seeds": "0-5"}', "job.jsonl") == [
        "line 1: the job has more than 5 pictures: write several"
    ]
    assert told(tmp_path, "", "job.doc") == [
        "a job is a file .jsonl, .csv, .yaml, .yml, .txt, not '.doc'"
    ]
    with pytest.raises(JobError, match=r"it cannot be read: .*No such file"):
        read_job(tmp_path / "nothing.csv")


def test_very_many_mistakes_are_not_all_read(tmp_path):
    (tmp_path / "job.jsonl").write_text("x\n" * 50_000)
    with pytest.raises(JobError, match="has 10000 mistakes or more; nothing was made") as caught:
        read_job(tmp_path / "job.jsonl")
    assert len(caught.value.wrong) == 1000


def test_a_job_is_checked_without_torch(tmp_path):
    lines = [
        {"prompt": "a cat and a frog", "seed": n, "method": method, "step_size": "3%"}
        for n, method in enumerate(["auto", "conform"] * 500)
    ]
    (tmp_path / "job.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code = (
        "import sys; from attncontrol.jobs.files import read_job\n"
        "from attncontrol.jobs.batches import plan\n"
        "print(len(plan(read_job(sys.argv[1]), 8)), 'torch' in sys.modules, 'spacy' in sys.modules)"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "job.jsonl")]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "126 False False\n"


def test_a_method_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "job_losses.py").write_text(
        "from dataclasses import dataclass\nfrom attncontrol import Objective\n"
        "@dataclass(frozen=True)\nclass Mine(Objective):\n    words: list | None = None\n"
        "    weight: float = 1.0\n    def __call__(self, maps): return maps\n"
    )
    (tmp_path / "job_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    entry = "{prompt: a cat, method: 'job_losses:Mine', words: cat, parameters.weight: 2}"
    assert read(tmp_path, f"- {entry}")[0]["parameters"] == {"weight": 2}
    assert told(tmp_path, f"- {entry.replace('weight', 'wait')}") == [
        "line 1, parameters.wait: job_losses:Mine has no such field; did you mean weight?"
    ]
    assert told(tmp_path, "- {prompt: a cat, method: 'job_broken:Mine'}") == [
        "line 1, method: job_broken:Mine cannot be imported: ZeroDivisionError('division by zero')"
    ]


EXAMPLES = [
    {"prompt": "a red cat", "seeds": "0-3", "method": "auto", "step_size": "6%"},
    {"prompts": ["a cat"], "seed": 5, "words": [["cat"]], "parameters.temperature": 0.5},
    {"source": "a cat", "move": ["cat", 0.5, 0], "record": ["cat"], "heads": None},
    {"prompt": "a cat", "boxes": {"cat": [0, 0, 0.5, 1]}, "lora": {"path": "a/b", "scale": 0.5}},
    {"prompt": "a cat", "matrix": {"method": ["plain", "auto"], "guidance": [1, 2.5]}},
]
WRONG = [
    {"promt": "a cat"}, {"prompt": ""}, {"prompt": 3}, {"prompt": "a", "steps": 0}, {"seed": -1},
    {"matrix": {"steps": []}}, {"u": 2}, {"dtype": "int8"}, {"height": 65},
    {"boxes": {"a": [0, 1]}},
]  # fmt: skip


def test_the_schema_takes_what_the_reader_takes(tmp_path):
    checker = jsonschema.Draft202012Validator(schema())
    checker.check_schema(schema())
    checker.validate(EXAMPLES)
    checker.validate({"defaults": EXAMPLES[0], "items": EXAMPLES[1:]})
    for wrong in WRONG:
        assert not checker.is_valid([wrong]), wrong
        assert told(tmp_path, json.dumps(wrong), "job.jsonl")
    assert not checker.is_valid({"entries": []})
    entry = schema()["$defs"]["Entry"]["properties"]
    assert sorted(entry) == sorted(FIELDS)
    assert all(each["description"] for each in entry.values())
