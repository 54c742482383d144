"""Does reinforcement learning teach elimination? The tiny recipe with several seeds: ``make bench-learning``.

Every seed is a run of its own (world, base, RL and evaluation), kept in ``runs/learning-seed-<n>``; finished ones are
read again. Prints, and writes to ``runs/learning.json``, macro MRR before and after, BM25's, the paired p, the number of
datasets that rose, malformed answers and seconds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from iranker_verl.job.pipeline import train

RECIPE = "recipes/tiny_cpu"


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one run that the bars are about."""
    macro, datasets = results["macro"], results["datasets"].values()
    return {
        "seed": results["seed"],
        "before": macro["before"]["rr"],
        "after": macro["after"]["rr"],
        "gain": macro["after"]["rr"] - macro["before"]["rr"],
        "bm25": macro["bm25"]["rr"],
        "paired_p": results["paired_p"],
        "datasets_up": sum(d["after"]["rr"] > d["before"]["rr"] for d in datasets),
        "malformed": macro["after"]["malformed_rate"],
        "seconds": results["time_s"]["total"],
        "rl_share_of_job": results["time_s"]["rl"] / results["time_s"]["total"],
        "rl_time_share": results["rl_time_share"],
        "peak_rss_gib": results["peak_rss_bytes"] / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        run = Path("runs") / f"learning-seed-{seed}"
        train(RECIPE, [f"iranker.seed={seed}", f"iranker.run_dir={run}", *arguments.overrides])
        rows.append(summary(json.loads((run / "results.json").read_text(encoding="utf-8"))))
        print(json.dumps(rows[-1], indent=1), flush=True)
    Path("runs/learning.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
