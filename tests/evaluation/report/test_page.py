"""The report in a real browser: it opens, every figure is drawn, nothing is complained of and nothing is fetched.

Chromium (or Chrome) is found on the PATH, or named by ``CHROMIUM``; without one these tests are skipped.
"""

import os
import shutil
from pathlib import Path

import pytest

from iranker_verl.evaluation.report.compare import write_comparison
from iranker_verl.evaluation.report.page import write_report
from tests.evaluation.report.browser import Browser
from tests.evaluation.report.runs_on_disk import EVIL, change_results, make_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
FOUND = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="no chromium or chrome on the PATH; CHROMIUM=FILE names one"),
]

# What a reader would see as broken. A figure's texts may be a little beside it, but not outside of its card.
LOOK = """(() => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom, r.width, r.height]; };
  const wide = document.documentElement.clientWidth;
  const figures = [...document.querySelectorAll("svg.figure")];
  return {
    figures: figures.map(f => ({id: f.id, width: box(f)[4], height: box(f)[5],
      shapes: [...f.querySelectorAll("path, use")].filter(e => box(e)[4] + box(e)[5] > 0).length,
      outside: [...f.querySelectorAll("text")].filter(t => { const b = box(t), s = box(f), c = box(f.closest("figure") || f);
        return b[0] < c[0] || b[2] > c[2] || b[1] < s[1] - 8 || b[3] > s[3] + 8; }).map(t => t.textContent)})),
    cards: document.querySelectorAll("figure").length,
    overflow: document.documentElement.scrollWidth - wide,
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    scripts: document.scripts.length,
  };
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(str(FOUND), tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A newcomer's first report, one with everything in it, and two runs side by side."""
    folder = tmp_path_factory.mktemp("runs")
    tiny = make_run(folder / "tiny", title=EVIL)
    full = make_run(folder / "full", datasets=("rec-movie", "router-cost", "passage-5", "passage-7"), knows=0.7)

    def change(results):
        results["config"]["data"]["raw"] = "data/raw"
        results["zero_shot"] = {"rec-movie": results["datasets"]["rec-movie"]["after"]}
        results["generic"] = {"gsm8k": {"base": 0.5, "trained": 0.75, "stderr": 0.01}}
        results["unavailable"] = {"monot5": "no weights: " + "a/long/path/" * 20}
        results["macro"]["after"] |= {"rr_strict": 0.5, "orders": {"k": 4, "sd": 0.01, "position_bias": 0.1}}

    change_results(full, change)
    return {
        "tiny": write_report(tiny),
        "full": write_report(full),
        "compare": write_comparison([tiny, full], folder / "compare.html"),
    }


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280], ids=["phone", "desktop"])
@pytest.mark.parametrize(("name", "least"), [("tiny", 8), ("full", 8), ("compare", 1)])
def test_page(browser, pages, name, least, width, dark):
    seen = browser.look(pages[name].as_uri(), LOOK, width=width, dark=dark)
    assert seen.complaints == []
    assert seen.requests == [pages[name].as_uri()]  # the page itself and nothing else
    found = seen.value
    assert len(found["figures"]) == found["cards"] >= least
    for figure in found["figures"]:
        assert figure["width"] > 200 and figure["height"] > 60 and figure["shapes"] >= 5, figure["id"]
        assert figure["outside"] == [], figure["id"]
    assert found["overflow"] <= 0  # tables scroll within their cards
    assert found["scripts"] == 0
    paper, ink = (sum(map(int, found[k].removeprefix("rgb(").rstrip(")").split(","))) for k in ("background", "ink"))
    assert (paper < ink) == dark


def test_the_browser_would_have_noticed(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        '<script>console.error("no"); nowhere()</script><img src="http://127.0.0.1:59997/a.png"><svg class="figure">'
    )
    seen = browser.look(page.as_uri(), LOOK, width=360, dark=False)
    assert any("no" in c for c in seen.complaints) and any("nowhere" in c for c in seen.complaints)
    assert "http://127.0.0.1:59997/a.png" in seen.requests
    assert seen.value["figures"][0]["shapes"] == 0 and seen.value["scripts"] == 1
