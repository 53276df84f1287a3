"""One pipeline in two threads is refused, and the first thread does not notice; everything else
that threads may do is exact."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from attncontrol.errors import ThreadError
from attncontrol.running.session import attach
from attncontrol.verbs.record import record
from tests.kit.state import changes, denoiser_of, left_behind, state
from tests.kit.verbs import VERBS, made, opened, unchanged
from tests.kit.zoo import ZOO

FIRST = {"sd": "conv_in", "flux": "transformer_blocks.0"}
LATE = {"sd": "up_blocks.2", "flux": "single_transformer_blocks.1"}
PATIENCE = 60.0  # seconds, after which a thread that waits gives up


@pytest.fixture(params=["sd", "flux"])
def name(request):
    return request.param


@pytest.fixture
def pipe(name):
    with unchanged(name) as pipe:
        yield pipe


def in_thread(function, *args, **kwargs):
    """What it returns, or its error, after it has ended in a thread of its own."""
    result = []

    def work():
        try:
            result.append(function(*args, **kwargs))
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert result, "the thread did not end"
    return result[0]


def at_steps(moment, action):
    """A callback that acts after one step of a run."""

    def on_step_end(_, index, __, tensors):
        if index == moment:
            action()
        return tensors

    return {"callback_on_step_end": on_step_end}


@pytest.mark.parametrize("verb", VERBS)
def test_a_plain_call_in_another_thread_is_refused_at_any_time(name, pipe, verb):
    with opened(name, pipe, verb):
        wanted = made(name, pipe)
    plain, answers = made(name, pipe), []

    def try_it():
        answers.append(in_thread(made, name, pipe, seed=1))

    with ExitStack() as stack:
        stack.enter_context(opened(name, pipe, verb))
        try_it()
        got = made(name, pipe, **at_steps(0, lambda: [try_it() for _ in range(8)]))
        try_it()
    assert torch.equal(got, wanted)
    assert [type(answer) for answer in answers] == [ThreadError] * 10
    with pytest.raises(ThreadError, match="use a lock, or a pipeline for each thread"):
        raise answers[0]
    assert torch.equal(made(name, pipe), plain)


@pytest.mark.parametrize("there", VERBS)
@pytest.mark.parametrize("here", VERBS)
def test_a_context_in_another_thread_is_refused(name, pipe, here, there):
    def enter():
        with opened(name, pipe, there):
            raise AssertionError

    context = opened(name, pipe, here)
    context.__enter__()
    before = state(pipe)
    for _ in range(10):
        assert isinstance(in_thread(enter), ThreadError)
        assert not changes(before, state(pipe))
    context.gen.close()


def test_two_threads_that_record_at_once(name, pipe):
    """Whoever comes first is right, the other is refused: 10 of 10."""
    with record(pipe, ["cat"]) as wanted:
        made(name, pipe)
    for _ in range(10):
        start, refused = threading.Barrier(2), threading.Event()

        def work(start=start, refused=refused):
            start.wait(PATIENCE)
            try:
                with record(pipe, ["cat"]) as maps:
                    made(name, pipe)
                    assert refused.wait(PATIENCE)
            except ThreadError:
                refused.set()
                raise
            return maps

        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(work) for _ in range(2)]
        errors = [one.exception() for one in both]
        assert sorted(type(error) for error in errors if error) == [ThreadError]
        (maps,) = [one.result() for one in both if one.exception() is None]
        assert torch.equal(maps["cat"], wanted["cat"])


def test_a_context_is_refused_while_the_pipeline_runs_elsewhere(name, pipe):
    def enter():
        with record(pipe, ["cat"]):
            raise AssertionError

    plain, answers = made(name, pipe), []
    got = made(name, pipe, **at_steps(0, lambda: answers.append(in_thread(enter))))
    assert torch.equal(got, plain)
    assert isinstance(answers[0], ThreadError)


@pytest.mark.parametrize("verb", VERBS)
def test_to_thread_inside_a_block(name, pipe, verb):
    with opened(name, pipe, verb) as here:
        wanted = made(name, pipe)
    with opened(name, pipe, verb) as there:
        got = asyncio.run(asyncio.to_thread(made, name, pipe))
    assert torch.equal(got, wanted)
    if verb == "record":
        assert torch.equal(there["cat"], here["cat"])
    if verb == "steer":
        assert there.steps == here.steps


def test_two_to_thread_at_once(name, pipe):
    with opened(name, pipe, "perturb"):
        wanted = made(name, pipe)
    refused = threading.Event()

    def work():
        def wait():
            assert refused.wait(PATIENCE)

        try:
            return made(name, pipe, **at_steps(0, wait))
        except ThreadError:
            refused.set()
            raise

    async def both():
        calls = (asyncio.to_thread(work) for _ in range(2))
        return await asyncio.gather(*calls, return_exceptions=True)

    for _ in range(5):
        refused.clear()
        with opened(name, pipe, "perturb"):
            answers = asyncio.run(both())
        assert sum(isinstance(answer, ThreadError) for answer in answers) == 1
        (got,) = [answer for answer in answers if not isinstance(answer, ThreadError)]
        assert torch.equal(got, wanted)


def test_other_contexts_of_variables_in_the_same_thread(name, pipe):
    """Cells of a notebook may run in copies of the context."""
    with opened(name, pipe, "perturb"):
        wanted = made(name, pipe)
    context, inside = opened(name, pipe, "perturb"), contextvars.copy_context()
    inside.run(context.__enter__)
    assert torch.equal(made(name, pipe), wanted)
    assert torch.equal(contextvars.copy_context().run(made, name, pipe), wanted)
    contextvars.copy_context().run(context.__exit__, None, None, None)


def test_two_pipelines_with_contexts_of_their_own(name, pipe):
    pipes = (pipe, ZOO[name]())

    def work(which, verbs):
        with ExitStack() as stack:
            for verb in verbs:
                stack.enter_context(opened(name, pipes[which], verb))
            return made(name, pipes[which], seed=which, steps=3)

    jobs = [(0, ("steer", "perturb")), (1, ("edit", "record", "perturb"))]
    wanted = [work(*job) for job in jobs]
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            got = [pool.submit(work, *job) for job in jobs]
        assert all(torch.equal(a.result(), b) for a, b in zip(got, wanted, strict=True))
    assert not left_behind(pipes[1])


@pytest.mark.parametrize("others", [(), ("perturb",), ("steer", "edit")], ids="-".join)
@pytest.mark.parametrize("purpose", ["own", "gradient", "weakened"])
@pytest.mark.parametrize("late", [False, True])
def test_a_shared_denoiser_in_two_threads(name, pipe, purpose, others, late):
    """A whole run of the other pipeline in another thread while the denoiser is in the midst of a
    pass of the first one."""
    other = type(pipe)(**pipe.components)
    other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    other.set_progress_bar_config(disable=True)
    here, answers = threading.get_ident(), []

    def elsewhere():
        with ExitStack() as stack:
            for verb in others:
                stack.enter_context(opened(name, other, verb))
            return made(name, other, seed=1, steps=1)

    def first(stack):
        for verb in ("record", "steer", "perturb", "edit"):
            stack.enter_context(opened(name, pipe, verb))
        return made(name, pipe)

    wanted = elsewhere()
    with ExitStack() as stack:
        alone = first(stack)

    def meanwhile(*_):
        mine = threading.get_ident() == here and attach(pipe).purpose == purpose
        if mine and not answers:
            answers.append(in_thread(elsewhere))

    place = (LATE if late and purpose != "gradient" else FIRST)[name]
    hook = denoiser_of(pipe).get_submodule(place).register_forward_pre_hook(meanwhile)
    with ExitStack() as stack:
        got = first(stack)
    hook.remove()
    assert torch.equal(answers[0], wanted)
    assert torch.equal(got, alone)
