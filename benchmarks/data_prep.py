"""Preparation at scale, against the script that one would write with pandas: ``python -m benchmarks.data_prep``.

Interactions in MovieLens-1M's format (generated; 165 a user, as there) become episodes in Parquet: prompts, candidates and
negatives, 20 and 20, split by user. Both read the same files; each run is a process of its own, so that its time and its
peak memory (of all its processes together, sampled) are its own. Prints rows/s, seconds (also of processor time, which
other work on the machine changes less), GiB and their ratios, and how time grows with the rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random

import numpy as np

USERS_EACH = 165
MOVIES = 3883


def write_movielens(folder: Path, interactions: int, seed: int = 1) -> None:
    """``ratings.dat`` and ``movies.dat`` with popular and rare films, user by user, times not in order."""
    folder.mkdir(parents=True, exist_ok=True)
    dice, random = np.random.default_rng(seed), Random(seed)
    words = ["".join(random.choices("abcdefghiklmnoprstu", k=random.randint(3, 9))).title() for _ in range(3000)]
    titles = [f"{' '.join(random.choices(words, k=3))} ({random.randint(1920, 2000)})" for _ in range(MOVIES)]
    lines = [f"{i + 1}::{title}::Drama|Comedy" for i, title in enumerate(titles)]
    (folder / "movies.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    popular = 1 / (np.arange(MOVIES) + 20)
    with (folder / "ratings.dat").open("w", encoding="latin-1") as file:
        users = interactions // USERS_EACH
        for start in range(1, users + 1, 2000):
            user = np.repeat(np.arange(start, min(start + 2000, users + 1)), USERS_EACH)
            movie = dice.choice(MOVIES, len(user), p=popular / popular.sum()) + 1
            when = dice.integers(956_000_000, 1_046_000_000, len(user))
            file.writelines(
                f"{u}::{m}::4::{t}\n" for u, m, t in zip(user.tolist(), movie.tolist(), when.tolist(), strict=False)
            )


def ours(raw: Path, out: Path, processes: int | None) -> None:
    from data_prep.prepare import prepare
    from iranker_verl.ranking.templates import load

    prepare(raw, out, load("label"), processes=processes)


def pandas_script(raw: Path, out: Path, engine: str) -> None:
    """The baseline: read, group by user, apply a function that sorts and samples, write Parquet."""
    import pandas as pd

    names = ["user", "item", "rating", "time"]
    if engine == "python":  # the line that every MovieLens notebook has
        ratings = pd.read_csv(raw / "ratings.dat", sep="::", engine="python", names=names, encoding="latin-1")
    else:  # the quicker one for who knows the trick
        ratings = pd.read_csv(raw / "ratings.dat", sep=":", header=None, usecols=[0, 2, 4, 6], encoding="latin-1")
        ratings.columns = names
    movies = pd.read_csv(
        raw / "movies.dat", sep="::", engine="python", names=["item", "title", "genres"], encoding="latin-1"
    )
    text = (movies.title + ", " + movies.genres.str.replace("|", ", ")).set_axis(movies.item)
    every = set(movies.item)
    random = Random(1)
    users = sorted(ratings.user.unique())
    random.shuffle(users)
    test = set(users[: len(users) // 5])

    def episode(events: pd.DataFrame) -> dict | None:
        items = events.sort_values("time", kind="stable").item.drop_duplicates().tolist()
        if len(items) < 21:
            return None
        history, positive = items[-21:-1], items[-1]
        candidates = [positive, *random.sample(sorted(every - set(items)), 19)]
        random.shuffle(candidates)
        context = "; ".join(text[i] for i in history)
        lines = "\n".join(f"[{chr(65 + n)}] {text[i]}" for n, i in enumerate(candidates))
        prompt = f"History: {context}\nCandidates:\n{lines}\nExclude the worst:"
        return {
            "data_source": "rec-movie",
            "prompt": [{"role": "user", "content": prompt}],
            "reward_model": {
                "style": "rule",
                "ground_truth": {"candidates": [text[i] for i in candidates], "target": candidates.index(positive)},
            },
            "extra_info": {"context": context, "candidate_ids": candidates, "history_ids": history},
        }

    made = ratings.groupby("user")[["item", "time"]].apply(episode)
    out.mkdir(parents=True)
    for split, own in (("train", made[~made.index.isin(test)]), ("test", made[made.index.isin(test)])):
        pd.DataFrame([row for row in own if row is not None]).to_parquet(out / f"{split}.parquet")


RUNS = {
    "ours": lambda raw, out: ours(raw, out, None),
    "ours, 1 process": lambda raw, out: ours(raw, out, 1),
    "pandas": lambda raw, out: pandas_script(raw, out, "python"),
    "pandas, C reader": lambda raw, out: pandas_script(raw, out, "c"),
}


def measured(name: str, raw: Path, folder: Path) -> dict[str, float]:
    """Seconds, processor seconds of all its processes, and peak GiB of a run in a process of its own."""
    from iranker_verl.job.supervise import memory_below

    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    start, cpu = time.monotonic(), cpu_of_children()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.data_prep", "--run", name, str(raw), str(out)])
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, memory_below(process.pid))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        raise SystemExit(f"{name} failed")
    watcher.join()
    seconds = time.monotonic() - start
    return {"seconds": seconds, "cpu_seconds": cpu_of_children() - cpu, "peak_gib": peak / 2**30}


def cpu_of_children() -> float:
    """Of those that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, raw, out = arguments.run
        RUNS[name](Path(raw), Path(out))
        return
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for rows in arguments.interactions:
            raw = folder / f"raw-{rows}"
            write_movielens(raw, rows)
            largest = rows == max(arguments.interactions)
            for name in RUNS if largest else ["ours"]:
                one = measured(name, raw, folder) | {"rows": rows}
                one["rows_per_s"] = rows / one["seconds"]
                results[f"{name}, {rows:,} rows"] = one
                print(
                    f"{name:>18}  {rows:>11,} rows  {one['seconds']:7.1f} s  {one['rows_per_s']:>10,.0f} rows/s  "
                    f"{one['cpu_seconds']:7.1f} CPU s  {one['peak_gib']:.2f} GiB",
                    flush=True,
                )
        most = max(arguments.interactions)
        own = results[f"ours, {most:,} rows"]
        for name in ("pandas", "pandas, C reader"):
            baseline = results[f"{name}, {most:,} rows"]
            wall, cpu = (baseline[key] / own[key] for key in ("seconds", "cpu_seconds"))
            print(f"ours is {wall:.1f} times as fast as {name}, and takes {cpu:.1f} times less processor time")
        print(json.dumps(results))


if __name__ == "__main__":
    main()
