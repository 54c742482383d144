"""What the driver does between the start of training and its first batch: ``python -m benchmarks.driver_start MODEL [TASKS]``.

``MODEL`` is a folder with a tokenizer and its chat template. 1,000,000 short tasks of ten candidates by default. Each line is one part, with its seconds and the memory of the process after it.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import AutoTokenizer
from verl.trainer.ppo.utils import create_rl_dataset, create_rl_sampler
from verl.utils.dataset.rl_dataset import collate_fn

from data_prep.lengths import check_files
from data_prep.rows import episode_rows
from iranker_verl.job.stages import count_prompt, prompt_counter_key
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load
from iranker_verl.training.curriculum import Curriculum, pool_sizes
from iranker_verl.training.main import compose_recipe

CANDIDATES, BLOCK = 10, 10_000


def write(path: Path, tasks: int) -> None:
    """Write ``tasks`` rows, a block of different ones again and again."""
    candidates = tuple(Candidate(f"id{i}", f"the title of number {i}") for i in range(CANDIDATES))
    relevance = (1.0,) + (0.0,) * (CANDIDATES - 1)
    block = episode_rows(
        (
            RankingTask(f"rec-movie:{i}", "recommendation", "rec-movie", f"what user {i} liked", candidates, relevance)
            for i in range(min(BLOCK, tasks))
        ),
        load("label"),
        "train",
    )
    with pq.ParquetWriter(path, block.schema) as writer:
        for _ in range(max(1, tasks // BLOCK)):
            writer.write_table(block)


def main() -> None:
    """Print each part, and the peak."""
    tasks = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.parquet")
        write(file, tasks)
        options = [f"data.train_files={file}", "data.train_batch_size=256", f"+data.cache_dir={folder}"]
        config = compose_recipe("recipes/tiny_cpu", options)
        model = Path(sys.argv[1])
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        count_tokens = partial(count_prompt, model, config.algorithm.adv_estimator)

        def timed(name: str, call: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = call()
            memory = psutil.Process().memory_full_info().uss / 2**30
            print(f"{name}: {time.perf_counter() - start:.1f} s, {memory:.2f} GiB", flush=True)
            return result

        counter = prompt_counter_key(model, config.algorithm.adv_estimator)
        for start in ("first", "second"):
            timed(
                f"lengths, {start} start",
                lambda: check_files([file], load("label"), count_tokens, 2040, counter),
            )
        for start in ("first", "second"):
            data = timed(f"data set, {start} start", lambda: create_rl_dataset(str(file), config.data, tokenizer, None))
        sizes = timed("pool sizes", lambda: pool_sizes(data.dataframe))
        choice = timed("curriculum", lambda: Curriculum(sizes, seed=1, **config.iranker.curriculum))
        timed("a batch of the curriculum", lambda: collate_fn([data[i] for i in choice.draw(256)]))
        sampler = create_rl_sampler(config.data, data)
        loader = StatefulDataLoader(data, batch_size=256, collate_fn=collate_fn, sampler=sampler)
        timed("a batch of verl's loader", lambda: next(iter(loader)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{len(data)} tasks: {peak:.2f} GiB at the peak, files read from the page cache included")


if __name__ == "__main__":
    main()
