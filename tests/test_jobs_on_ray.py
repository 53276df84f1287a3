"""Jobs by actors of Ray: the same as in one process, also where an actor dies."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from attncontrol import jobs
from attncontrol.errors import PackageError
from attncontrol.jobs import index, on_ray
from attncontrol.jobs.engine import run
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from tests.kit.dying import Dying


@pytest.fixture
def job(model):
    return Job.of(
        Item(prompt="a red cat and a frog", seed=seed, model=model, steps=1) for seed in range(4)
    )


@pytest.fixture
def ray(monkeypatch):
    """Two processors and a small store; as patient as others on this machine."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(
        num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False
    )
    yield ray
    ray.shutdown()


@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_actors_make_the_same_and_one_that_dies_costs_time_alone(job, tmp_path, monkeypatch):
    here = run(job, tmp_path / "here", batch=2)
    monkeypatch.setattr(on_ray, "Actor", Dying)
    there = run(job, tmp_path / "there", batch=2, workers=2, engine="ray")
    assert (tmp_path / "there" / ".died").exists()
    assert [each.pixels for each in there] == [each.pixels for each in here]
    assert [each.item for each in index.read(tmp_path / "there")] == list(job.items)


def cluster_file():
    text = (Path(jobs.__file__).parent / "README.md").read_text("utf-8")
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "provider:" in b]
    return yaml.safe_load(block)


def test_the_cluster_of_the_readme_is_one():
    told = cluster_file()
    provider = told["provider"]
    assert (provider["type"], told["max_workers"]) == ("local", len(provider["worker_ips"]))
    port = told["head_start_ray_commands"][-1].rpartition("=")[2]
    assert told["worker_start_ray_commands"][-1].endswith(f"$RAY_HEAD_IP:{port}")


def test_ray_takes_the_cluster_of_the_readme():
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(cluster_file()))


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_two_nodes_make_the_same(job, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray = pytest.importorskip("ray")
    nodes = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = nodes.Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False)
        there = run(job, tmp_path / "there", batch=2, workers=2, engine="ray")
        assert len(ray.nodes()) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    here = run(job, tmp_path / "here", batch=2)
    assert [each.pixels for each in there] == [each.pixels for each in here]


def test_without_ray_it_says_what_to_install(job, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PackageError, match=r"pip install 'attncontrol\[ray\]'"):
        run(job, tmp_path, engine="ray")
