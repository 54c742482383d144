"""On a running cluster what verl will reserve is reserved once, within a limit; Ray is a stand-in here."""

import os
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from iranker_verl.errors import UserError
from iranker_verl.preflight.machine import Resources, supply
from iranker_verl.preflight.placement import check_placement, name_cluster
from iranker_verl.training.main import compose_recipe


class Group:
    """A stand-in for a placement group: its reference says whether there is room for it."""

    def __init__(self, room):
        self.room = room

    def ready(self):
        return self


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of nodes that each have free GPUs, in the place of Ray's; what is left reserved is in ``cluster.reserved``."""
    ray = pytest.importorskip("ray")
    from ray import util

    made = SimpleNamespace(nodes=[], reserved=[])

    def reserve(bundles, strategy):
        assert strategy == "STRICT_PACK"  # as verl does: all of a node's on one
        free = [node for node in made.nodes if node["free"] >= len(bundles)]
        if free:
            free[0]["free"] -= len(bundles)
        made.reserved.append(Group(bool(free)))
        return made.reserved[-1]

    def total():
        return {"GPU": float(sum(node["GPU"] for node in made.nodes)), "CPU": 500.0}

    monkeypatch.setattr(util, "placement_group", reserve)
    monkeypatch.setattr(util, "remove_placement_group", made.reserved.remove)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", total)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {**n, "CPU": 64}} for n in made.nodes])
    monkeypatch.setattr(ray, "wait", lambda refs, num_returns, timeout: ([r for r in refs if r.room], []))
    return made


def on_cluster(*overrides):
    return compose_recipe("recipes/tiny_cpu", ["++ray_kwargs.ray_init.address=head:6379", *overrides])


def test_a_cluster_that_the_recipe_names_is_asked_and_not_this_machine(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "")
    cluster.nodes = [{"GPU": 8, "free": 8}]
    config = on_cluster()
    name_cluster(config)
    assert os.environ["RAY_ADDRESS"] == "head:6379"
    assert supply(config) == Resources(500.0, 8.0)
    name_cluster(compose_recipe("recipes/tiny_cpu", []))  # its own, "local"
    assert os.environ["RAY_ADDRESS"] == "head:6379"


def test_what_no_node_has_room_for_is_refused_with_the_numbers(cluster):
    cluster.nodes = [{"GPU": 8, "free": 8}, {"GPU": 8, "free": 8}]
    check_placement(on_cluster("trainer.nnodes=2", "trainer.n_gpus_per_node=8"))
    for node in cluster.nodes:
        node["free"] = 8
    with pytest.raises(
        UserError, match="1 node with 16 GPUs and 48 CPUs each, and in 120 s 0 could be reserved"
    ) as error:
        check_placement(on_cluster("trainer.n_gpus_per_node=16"))
    assert "8 and 64, 8 and 64" in str(error.value) and cluster.reserved == []
    cluster.nodes[0]["free"] = 3  # another job's
    with pytest.raises(UserError, match="1 could be reserved"):
        check_placement(on_cluster("trainer.nnodes=2", "trainer.n_gpus_per_node=8"))
