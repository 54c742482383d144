"""Other people's files and links where outputs go, for tests that they are left alone."""

from __future__ import annotations

import os

from hypothesis import strategies as st

# Names that this package writes, writes beside, or wrote in former versions.
_BESIDE = (
    *("out.old", "out.part", "out.work", ".out.work", ".out.part", f".out.{16 * '0'}.old", f".out.{16 * 'a'}.part"),
    *(f".out.{16 * 'b'}.work", ".out.iranker-lock", ".run.iranker-lock", "out", "run", "card.json", "card.html.part"),
    *(
        "card.json.part",
        "card.html",
        "lists.jsonl",
        "lists.header.json",
        "lists.jsonl.unfinished",
        "store",
        "page.html",
    ),
)
_INSIDE = (
    *("manifest.json", "train.parquet", "test.parquet", "notes.txt", ".iranker", "results.json", "report.html"),
    *(
        "card.html",
        "card.json",
        "runs/a.run",
        "lock",
        "deep/a.txt",
        "deep",
        "tables.csv",
        "traces.jsonl",
        "config.yaml",
    ),
    *(
        "episodes-random.jsonl",
        "episodes-random.header.json",
        "episodes-random.jsonl.unfinished",
        "runs/rec-movie/qrels.txt",
    ),
)
ANY_PLACE = ("file", "empty", "folder", "empty folder", "link to a file", "link to a folder", "dead link")
_NAMES = [*_BESIDE, *(f"{top}/{name}" for top in ("out", "run", "store", "out.work", "out.part") for name in _INSIDE)]
PLACES = st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(ANY_PLACE)), max_size=12)


def plant(top, places, rng):
    """Put each thing in its place, where nothing is in the way yet; what links lead to lies in ``top/elsewhere``."""
    elsewhere = top / "elsewhere"
    (elsewhere / "folder").mkdir(parents=True, exist_ok=True)
    (elsewhere / "file").write_text("precious")
    (elsewhere / "folder" / "train.parquet").write_text("precious too")
    for name, kind in places:
        path = top / name
        if os.path.lexists(path) or any(p.is_symlink() or p.is_file() for p in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_text(f"theirs {rng.random()}")
        elif kind == "empty":
            path.touch()
        elif kind == "folder":
            path.mkdir()
            (path / "manifest.json").write_text(f'{{"theirs": {rng.random()}}}')
            (path / "photo.jpg").write_bytes(b"theirs" + rng.randbytes(20))
        elif kind == "empty folder":
            path.mkdir()
        else:
            target = {"link to a file": "file", "link to a folder": "folder", "dead link": "nothing"}[kind]
            path.symlink_to(elsewhere / target)


def snapshot(top):
    """What is foreign below ``top``: each file's bytes, each link's target. What we wrote before, and folders, do not count."""
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif path.is_file() and _is_theirs(path.read_bytes()):
            found[path] = path.read_bytes()
    return found


def _is_theirs(content):
    return not content or content.startswith((b"theirs", b"precious", b'{"theirs"'))
