"""The report on synthetic runs: everything is there, nothing is fetched, and texts stay texts."""

import json
import re
from html.parser import HTMLParser

import pytest
from synthetic import make_tasks, play_as

from iranker_verl.errors import UserError
from iranker_verl.evaluation.evaluate import collect, evaluate_rivals
from iranker_verl.evaluation.report import write_report

EVIL = "<script>alert('$x$')</script> http://evil.example/a.js & \"co\""


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [v for name, v in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]

    def handle_data(self, data):
        self.words.append(data)


def make_run(folder, *, title="title", malformed=0.0):
    folder.mkdir()
    tasks = make_tasks(title=title)
    systems = [play_as("before", tasks, knows=0, malformed=0.3), play_as("after", tasks, knows=1, malformed=malformed)]
    for result in systems:
        lines = [json.dumps(r.to_json()) for r in result.records]
        (folder / f"episodes-{result.system}.jsonl").write_text("\n".join(lines) + "\n")
    results = collect([*systems, *evaluate_rivals(tasks, tasks, say=lambda _: None)])
    results |= {
        "seed": 7,
        "versions": {"verl": "0.9.1", "torch": "2.13.0"},
        "data_hash": "d" * 16,
        "template_hash": "e" * 16,
        "time_s": {"prepare": 4, "base": 200, "rl": 400, "evaluate": 60, "total": 664},
        "rl_time_share": {"generate": 0.4, "forward": 0.1, "backward": 0.3, "other": 0.2},
        "peak_rss_bytes": 5 * 2**30,
        "about": ["The base was made in three stages.", f"Then {EVIL}"],
        "config": {"trainer": {"title": EVIL}},
    }
    (folder / "results.json").write_text(json.dumps(results))
    steps = [
        {"step": s, "reward/mean": 0.6 + s / 200, "reward/malformed": 0.1 / s, "val/mrr": 0.3 + s / 100}
        | {"time/step": 10, "time/generate": 5, "time/forward": 1, "time/backward": 3, "time/other": 1}
        for s in range(1, 41)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
    return folder


def page_of(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob("*.part"))
    return Page(path.read_text())


def test_everything_is_there(tmp_path):
    page = page_of(make_run(tmp_path / "tiny"))
    figures = {f"figure-{name}" for name in ("datasets", "learning", "ranks", "times")}
    assert figures | {"example", "about", "numbers", "provenance"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))  # the figures' own ids do not collide either
    for words in (
        *("tiny", "1.000", "Paired test: p < 0.001", "higher than before on 2 of 2", "11 min 04 s", "5.0 GiB"),
        *("Reward per step", "Validation MRR", "Malformed answers", "backward 30%", "popularity (1 of 2 datasets)"),
        *("The base was made in three stages.", "d" * 16, "e" * 16, "verl 0.9.1", "context 5"),
    ):
        assert words in page.text, words


def test_nothing_is_fetched(tmp_path):
    folder = make_run(tmp_path / "tiny")
    page = page_of(folder)
    text = (folder / "report.html").read_text()
    assert not [link for link in page.links if not link.startswith("#")]
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)


def test_both_colour_schemes(tmp_path):
    folder = make_run(tmp_path / "tiny")
    page_of(folder)
    text = (folder / "report.html").read_text()
    assert "prefers-color-scheme: dark" in text and "var(--after)" in text
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert all(text.count(f"{name}:") == 2 for name in used - {"--line", "--page"})  # one light, one dark
    assert not re.search(r"#0000[01]", text)  # no stand-in colour is left


def test_texts_stay_texts(tmp_path):
    page = page_of(make_run(tmp_path / "tiny <i>", title=EVIL))
    assert "script" not in page.tags and "i" not in page.tags
    assert EVIL in page.text


def test_a_malformed_step_is_shown_as_one(tmp_path):
    page = page_of(make_run(tmp_path / "tiny", malformed=1.0))
    assert "malformed: the last one shown leaves" in page.text and "no idea" in page.text


def test_results_alone_are_enough(tmp_path):
    folder = make_run(tmp_path / "tiny")
    for path in [*folder.glob("*.jsonl")]:
        path.unlink()
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({k: results[k] for k in ("datasets", "macro", "paired_p")}))
    page = page_of(folder)
    assert "figure-datasets" in page.ids
    assert not {"figure-learning", "figure-ranks", "figure-times", "example", "about"} & set(page.ids)


def test_a_single_system_is_enough(tmp_path):
    tasks = make_tasks(["router-cost", "of-its-own"][:1])
    (tmp_path / "results.json").write_text(json.dumps(collect([play_as("after", tasks, knows=1)])))
    assert "router-cost" in page_of(tmp_path).text


def test_steps_killed_repeated_or_not_finite(tmp_path):
    folder = make_run(tmp_path / "tiny")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "reward/mean": 0.9}\n{"step": 41, "reward/mean": NaN}\nnull\n{"step": 42, "rew')
    assert "figure-learning" in page_of(folder).ids


def test_time_shares_from_the_steps(tmp_path):
    folder = make_run(tmp_path / "tiny")
    results = json.loads((folder / "results.json").read_text())
    del results["rl_time_share"]
    (folder / "results.json").write_text(json.dumps(results))
    assert "generate 50%" in page_of(folder).text


def test_dollars_in_a_dataset_name_are_no_formula(tmp_path):
    folder = make_run(tmp_path / "tiny")
    text = (folder / "results.json").read_text().replace("rec-movie", r"$\\frac{ <b>")
    (folder / "results.json").write_text(text)
    assert r"$\frac{ <b>" in page_of(folder).text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"macro": {}}'])
def test_no_results_no_report(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json"):
        write_report(tmp_path)
    assert not list(tmp_path.glob("report*"))
