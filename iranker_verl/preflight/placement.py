"""Whether a running cluster has nodes with the free CPUs and GPUs that verl reserves: verl waits for them without end."""

from __future__ import annotations

import os
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.preflight.machine import BUNDLE_CPUS, cluster, on_cluster

LIMIT_S = 120.0


def name_cluster(config: Any) -> None:
    """Let ``ray_kwargs.ray_init.address=host:port`` be the cluster for all that reads ``RAY_ADDRESS``: checks and evaluation."""
    if (address := config.ray_kwargs.ray_init.get("address")) not in (None, "auto", "local"):
        os.environ["RAY_ADDRESS"] = str(address)


def check_placement(config: Any) -> None:
    """Reserve on a running cluster what verl will, and give it back. Raise UserError where that takes longer than ``LIMIT_S``."""
    if not on_cluster(config):
        return
    devices, nodes = config.trainer.n_gpus_per_node, config.trainer.nnodes
    bundles = [{"CPU": BUNDLE_CPUS, "GPU": 1} for _ in range(devices)]
    with cluster() as ray:
        from ray import util

        reserved = [util.placement_group(bundles, strategy="STRICT_PACK") for _ in range(nodes)]
        try:
            placed, _ = ray.wait([group.ready() for group in reserved], num_returns=nodes, timeout=LIMIT_S)
        finally:
            for group in list(reserved):
                util.remove_placement_group(group)
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if len(placed) < nodes:
        there = ", ".join(f"{has.get('GPU', 0):g} and {has.get('CPU', 0):g}" for has in alive)
        raise UserError(
            f"the recipe asks for {nodes} node{'s' * (nodes > 1)} with {devices} GPUs and {BUNDLE_CPUS * devices} CPUs each, and in "
            f"{LIMIT_S:g} s {len(placed)} could be reserved; the cluster's nodes have, in GPUs and CPUs: {there}, some of it perhaps "
            "in use (`ray status`). Set trainer.nnodes and trainer.n_gpus_per_node, or free some"
        )
