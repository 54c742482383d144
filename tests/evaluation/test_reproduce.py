"""`iranker reproduce`: the same systems on data as worded, with each switch of the public code, and with all."""

import json

from typer.testing import CliRunner

from data_prep.options import PUBLIC_CODE
from iranker_verl.cli import app
from iranker_verl.evaluation import reproduce


def raw_of(folder):
    """Thirty users who each watched 25 of 90 films, the 21st of all is "Title 20"."""
    (folder / "rec-movie").mkdir(parents=True)
    events = [
        (f"u{u}", f"i{20 if n == 20 else 21 + (7 * u + n) % 69}", 10 * n + u) for u in range(30) for n in range(25)
    ]
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *(f"{u}\t{i}\t{t}" for u, i, t in events)]
    (folder / "rec-movie" / "X.inter").write_text("\n".join(lines))
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token"
    titles = [f"i{i}\tTitle {i}\t{1950 + i % 50}" for i in range(90)]
    (folder / "rec-movie" / "X.item").write_text("\n".join([header, *titles]))
    return folder


def test_every_switch_that_changes_the_data_has_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "BASELINES", ("random", "popularity"))
    monkeypatch.setitem(PUBLIC_CODE, "max_states", 40)  # 40 // 19 = 2 training tasks
    asked = ["reproduce", "--raw", str(raw_of(tmp_path / "raw")), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "reproduction.json").read_text())
    changed = ["history_from=first", "negatives_avoid=task", "item_text=title", "max_states=40"]
    assert list(found["data_hash"]) == ["paper's words", *changed, "public code"]
    assert all(
        f"{name}: no effect on this data" in done.output for name in ("routing_ties=first", "leave_out=multi_news")
    )
    rr = {(row["variant"], row["system"]): row["rr"] for row in found["rows"]}
    assert len(rr) == 2 * len(found["data_hash"])
    # the 21st film is everybody's and popular, and so are the ones that may then be no negative: popularity knows it at once
    assert rr["history_from=first", "popularity"] == 1.0 > rr["paper's words", "popularity"]
    assert rr["max_states=40", "random"] == rr["paper's words", "random"]  # the test tasks are the same
    again = CliRunner().invoke(app, asked, env={"COLUMNS": "160"})
    assert (
        json.loads((tmp_path / "out" / "reproduction.json").read_text()) == found and "used again" not in again.output
    )
