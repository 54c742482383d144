"""Whole run folders without a model, for what reads them; and a page, taken apart."""

import json
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

from iranker_verl.evaluation.evaluate import evaluate_baselines
from iranker_verl.evaluation.results import collect
from tests.evaluation.synthetic import make_tasks, play_as

EVIL = "<script>alert('$x$')</script> http://evil.example/a.js & \"co\""


def save_episodes(folder, systems):
    for result in systems:
        lines = [json.dumps(r.to_json()) for r in result.records]
        (folder / f"episodes-{result.system}.jsonl").write_text("\n".join(lines) + "\n")


def save_results(folder, results):
    (folder / "results.json").write_text(json.dumps(results))


def make_run(folder, *, title="title", malformed=0.0, datasets=("rec-movie", "passage-5"), n=12, knows=1.0, seed=0):
    """A run of ``make train-tiny`` as it lies on disk: before, after and the standard baselines."""
    folder.mkdir(parents=True)
    tasks = make_tasks(datasets, n=n, title=title)
    with TemporaryDirectory() as elsewhere:
        baselines = evaluate_baselines(tasks, tasks, Path(elsewhere), log=lambda _: None)
    systems = [
        play_as("before", tasks, knows=0, malformed=0.3, seed=seed),
        play_as("after", tasks, knows=knows, malformed=malformed, seed=seed),
        *baselines,
    ]
    save_episodes(folder, systems)
    results = collect(systems)
    results |= {
        "seed": 7,
        "versions": {"verl": "0.9.1", "torch": "2.13.0"},
        "data_hash": "d" * 16,
        "template_hash": "e" * 16,
        "time_s": {"prepare": 4, "base": 200, "rl": 400, "evaluate": 60, "total": 664},
        "rl_time_share": {"generate": 0.4, "forward": 0.1, "backward": 0.3, "other": 0.2},
        "peak_rss_bytes": 5 * 2**30,
        "about": ["The base was made in three stages.", f"Then {EVIL}"],
        "config": {"trainer": {"title": EVIL}, "data": {"raw": None}},
    }
    save_results(folder, results)
    steps = [
        {
            "step": s,
            "reward/corrected": s / 200,
            "episode/candidates": min(8, 2 + s / 4),
            "reward/malformed": 0.1 / s,
            "val/mrr": 0.3 + s / 100,
        }
        | {"time/step": 10, "time/generate": 5, "time/forward": 1, "time/backward": 3, "time/other": 1}
        for s in range(1, 41)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
    return folder


def change_results(folder, change):
    """Apply ``change`` to the object in ``results.json``."""
    results = json.loads((folder / "results.json").read_text())
    change(results)
    save_results(folder, results)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.source = text
        self.tags, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [v for name, v in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]

    def handle_data(self, data):
        self.words.append(data)
