"""Files of a job with changes of every kind: a job whose plan makes each of its pictures once, or
JobError. The suite tries a few, ``FUZZ=2000 python -m pytest -n 0 tests/fuzz`` that many."""

import csv
import io
import json
import random
from collections import Counter

import yaml
from hypothesis import given
from hypothesis import strategies as st

from attncontrol.errors import JobError
from attncontrol.jobs.batches import plan
from attncontrol.jobs.files import FIELDS, read_job
from attncontrol.jobs.job import source_of
from tests.fuzz import budget

ENTRIES = [
    {"prompt": "a red cat and a frog", "seeds": "0-2", "method": "auto", "words": "red+cat,frog"},
    {"prompt": "a cat and a frog", "seed": 5, "method": "boxdiff", "step_size": "3%",
     "boxes": "cat=0,0,0.5,1 frog=0.5,0,1,1", "steps": 20, "parameters.descent.guided": 0.4},
    {"prompt": "a blue cat", "source": "a red cat", "method": "p2p@0.5+auto", "record": "cat"},
    {"prompt": "a cat", "regions": "a red cat=0,0,0.5,1", "negative": "rain", "guidance": 3.5},
    {"prompts": ["a cat", "a dog"], "height": 64, "width": 64, "lora": "owner/style=0.5",
     "matrix": {"method": ["plain", "conform"], "parameters.temperature": [0.5, 1.0]}},
    {"source": "a cat and a frog", "move": "cat=0.2,0", "model": "sprites-flux"},
    {"prompt": "a cat", "heads": [["mid_block.attn1", 3]], "heads_scale": 2, "u": 0.5},
]  # fmt: skip
ODD = (
    None, True, -1, 0, 2**64, 10**400, 1e308, float("nan"), float("inf"), "", " ", "x", "0-3",
    "3-1", "\x00", "\x1b[31m", "\ud800", "=", "a=b", "cat=0,0,1,1", "auto", "p2p", "p2p+auto+auto",
    ":", "a:b", "own:", "p2p@", "p2p@nan", "plain+", "a" * 5000, "a/b", "../..", "6%", "%", "1e400",
    [], [1], [[]], [["a"]], [None], {}, {"a": 1}, {"": []}, {"method": []}, {"seed": [1, 2, 3]},
    {"prompt": ["a", "a"]}, {"cat": [0, 0, 1, 1]}, {"cat": [1, 1, 0, 0]}, {"descent.guided": "x"},
    ["cat", 0.1, 0], ["cat", 0, 0], [["a", -1]], "\xe9", "\u732b", "nan", "0,0", "0-999999",
)  # fmt: skip
TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b",", b'"', b"'", b"{", b"}",
    b"[", b"]", b":", b"- ", b"#", b"&a ", b"*a ", b"!!python/object/apply:os.system ", b"!x ",
    b"|", b">", b"<<: ", b"---\n", b"...\n", b"\t", b"%", b"[" * 3000, b"{a: " * 3000,
    b'{"a":' * 3000, b"1" * 5000, b"NaN", b"? ", b"&a [*a]", b"\xed\xa0\x80", b"@", b"`", b"null",
    b"~", b"-1e999", b"prompt", b"items:\n", b"defaults:\n  seeds: 0-3\n", b"\xe2\x80\xa8",
    b"\\u0000", b"\\ud800",
)  # fmt: skip


def jsonl(entries):
    return "\n".join(json.dumps(each) for each in entries)


def table(entries):
    names = list(dict.fromkeys(name for each in entries for name in each))
    out = io.StringIO()
    rows = csv.DictWriter(out, names)
    rows.writeheader()
    for each in entries:
        cells = {
            name: json.dumps(value) if isinstance(value, list | dict) else value
            for name, value in each.items()
        }
        rows.writerow(cells)
    return out.getvalue()


def listed(entries):
    return yaml.safe_dump([*entries], allow_unicode=True, sort_keys=False)


def sheet(entries):
    defaults = {"steps": 20, "matrix": {"method": ["plain", "syngen"]}}
    return yaml.safe_dump({"defaults": defaults, "items": [*entries]}, sort_keys=False)


FORMATS = {"jsonl": jsonl, "csv": table, "yaml": listed, "yml": sheet}


def changed(entries, draw):
    """One field becomes another, comes, or goes; or is put into a matrix."""
    entry = draw.choice([each for each in entries if isinstance(each, dict) and each])
    name = draw.choice([*entry, *FIELDS, "promt", "parameters.x", "", "parameters."])
    kind = draw.random()
    if kind < 0.2:
        entry.pop(name, None)
    elif kind < 0.35:
        entry["matrix"] = {name: [draw.choice(ODD), draw.choice(ODD)]}
    elif kind < 0.45 and isinstance(entry.get(name), list | dict) and entry[name]:
        inside = entry[name]
        key = draw.choice([*inside] if isinstance(inside, dict) else range(len(inside)))
        inside[key] = draw.choice(ODD)
    else:
        entry[name] = draw.choice(ODD)
    if draw.random() < 0.1 and len(entries) > 2:
        entries[draw.randrange(len(entries))] = draw.choice(ODD)


def broken(data, draw):
    """Bytes come, go, or stand elsewhere."""
    at, size = draw.randrange(len(data) + 1), draw.choice((1, 2, 5, 50))
    kind = draw.random()
    if kind < 0.5:
        return data[:at] + draw.choice(TOKENS) + data[at:]
    if kind < 0.7:
        return data[:at] + data[at + size :]
    if kind < 0.8:
        return data[:at]
    if kind < 0.9:
        return data[:at] + bytes(draw.randrange(256) for _ in range(size)) + data[at + size :]
    return data[:at] + data[at // 2 : at // 2 + size] + data[at:]


def written(kind, draw):
    """A file with some changes."""
    entries = json.loads(json.dumps(draw.sample(ENTRIES, draw.randint(2, len(ENTRIES)))))
    for _ in range(draw.choice((0, 1, 1, 2))):
        changed(entries, draw)
    try:
        data = FORMATS[kind](entries).encode("utf-8", "surrogatepass")
    except (AttributeError, TypeError, yaml.YAMLError):  # not of this format
        data = jsonl(entries).encode("utf-8", "surrogatepass")
    for _ in range(draw.choice((0, 0, 1, 2))):
        data = broken(data, draw)
    return data


def outcome(file, size):
    """What is wrong with what comes of a file; None if it is as promised."""
    try:
        job = read_job(file)
    except JobError as error:
        told = [str(each) for each in error.wrong]
        return "nothing is wrong" if not told else next(filter(is_long, told), None)
    marks = [item.mark for item in job.items]
    if not marks or len({*marks}) < len(marks) or len(job.lines) != len(marks):
        return "items are there twice"
    sources = [source_of(item).mark for item in job.items if item.source is not None]
    if not {*sources} <= {*marks}:
        return "an edit without its source"
    batches = plan(job, size)
    if Counter(item.mark for batch in batches for item in batch.own) != Counter(marks):
        return "not every item is made once"
    return "too large" if any(len(batch.items) > max(size, 2) for batch in batches) else None


def is_long(text):
    return len(text) > 1000


def test_all_formats_say_the_same(tmp_path):
    jobs = []
    for kind in ("jsonl", "csv", "yaml"):
        text = FORMATS[kind]
        (tmp_path / f"job.{kind}").write_text(text(ENTRIES))
        jobs.append(read_job(tmp_path / f"job.{kind}").items)
    assert len(jobs[0]) == 16
    assert jobs[0] == jobs[1] == jobs[2]


@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2**64), st.integers(1, 9))
@budget(60)
def test_files_of_jobs(tmp_path_factory, kind, seed, size):
    file = tmp_path_factory.getbasetemp() / f"job.{kind}"
    file.write_bytes(written(kind, random.Random(seed)))
    assert outcome(file, size) is None
