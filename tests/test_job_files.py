"""Files of a job: what they say, and all that is wrong in them."""

import pytest

from attncontrol.errors import JobError
from attncontrol.jobs.batches import plan
from attncontrol.jobs.files import read_job


def told(tmp_path, text, name="job.yaml", **options):
    """What is wrong with a file, line by line."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(JobError) as caught:
        read_job(file, **options)
    return [str(each) for each in caught.value.wrong]


def test_all_mistakes_are_told_at_once(tmp_path):
    text = "- promt: a cat\n- prompt: a cat\n  steps: 0\n- {prompt: a cat, method: conformm}\n"
    assert told(tmp_path, text) == [
        "line 1, promt: no such field; did you mean prompt?",
        "line 1, prompt: there is none",
        "line 3, steps: 0: it should be greater than or equal to 1",
        "line 4, method: 'conformm': no such method; did you mean conform?",
    ]


def test_an_edit_and_its_source_are_one_call(tmp_path):
    file = tmp_path / "job.jsonl"
    file.write_text('{"prompt": "a dog", "source": "a cat", "method": "p2p", "seeds": "0-2"}')
    job = read_job(file)
    assert [(item.prompt, item.seed) for item in job.items] == [
        (prompt, seed) for seed in range(3) for prompt in ("a cat", "a dog")
    ]
    made = plan(job, 4)
    assert [batch.sources for batch in made] == [(None, 0, None, 2), (None, 0)]
