"""LLMRank's ranked candidates: by hand, and the published sets against counts made with nothing but string search."""

from pathlib import Path

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.ranked_candidates import is_truth, read_candidates, read_truth
from iranker_verl.evaluation.trec import score

GAMES = Path(__file__).parents[3] / "shared" / "data" / "rec" / "llmrank_games"
MEASURES = ["RR", "RR@20", "nDCG@10", "Success@1"]
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def written(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_by_hand(tmp_path):
    run = read_candidates(written(tmp_path, "Games.x", "u1\t5 7 5 9\nu2\t1 2\n"))
    assert run == {"u1": {"5": 3.0, "7": 2.0, "9": 1.0}, "u2": {"1": 2.0, "2": 1.0}}
    truth = written(tmp_path, "truth", HEADER + "u1\t1 2\t9\nother\t\t4\nu2\t3\t8\n")
    assert is_truth(truth) and not is_truth(tmp_path / "Games.x")
    qrels = read_truth(truth, run)
    assert qrels == {"u1": {"9": 1}, "u2": {"8": 1}}
    # u1's item is third once the repeated 5 is passed over; u2's is not there at all
    means = score(run, qrels, MEASURES).means
    assert means == pytest.approx({"RR": 1 / 6, "RR@20": 1 / 6, "nDCG@10": 0.25, "Success@1": 0})


@pytest.mark.parametrize(
    ("candidates", "truth", "message"),
    [
        ("u1\t5 7\nu1\t5\n", "u1\t1\t5\n", "row 2: user u1 occurs twice"),
        ("u1\t \n", "u1\t1\t5\n", "row 1: a user and candidates"),
        ("u1 5 7\n", "u1\t1\t5\n", "row 1: 1 fields"),
        ("u1\t5 7\n", "u2\t1\t5\n", "no user u1"),
        ("u1\t5 7\n", "u1\t1\t5\nu1\t1\t6\n", "row 3: user u1 occurs twice"),
    ],
)
def test_refused(tmp_path, candidates, truth, message):
    with pytest.raises(UserError, match=message):
        run = read_candidates(written(tmp_path, "Games.x", candidates))
        read_truth(written(tmp_path, "truth", HEADER + truth), run)


# Users of 158 whose next item is: among the 100 candidates, among the first 10, the first one.
COUNTS = {
    "random": (0, 0, 0),
    "pop": (9, 1, 0),
    "bpr": (31, 8, 1),
    "bm25": (14, 3, 0),
    "sasrec": (41, 14, 0),
    "gru4rec": (42, 14, 1),
    "bert": (3, 0, 0),
}


@pytest.mark.skipif(not GAMES.is_dir(), reason="the published candidate sets are not beside the project")
@pytest.mark.parametrize("method", COUNTS)
def test_published_sets(method):
    path = GAMES / f"Games.{method}"
    run = read_candidates(path)
    qrels = read_truth(GAMES / "Games-6k.test.inter", run)
    assert len(run) == len(qrels) == 158 and all(len(items) == 100 for items in run.values())
    means = score(run, qrels, ["Success@100", "Success@10", "Success@1", "RR"]).means
    found = tuple(round(158 * means[name]) for name in ("Success@100", "Success@10", "Success@1"))
    assert found == COUNTS[method]
    # the same numbers without a line of ours
    users = [line.split("\t") for line in path.read_text().splitlines()]
    following = dict(
        (line.split("\t")[0], line.split("\t")[2]) for line in (GAMES / "Games-6k.test.inter").read_text().splitlines()
    )
    places = [(*items.split(), following[user]).index(following[user]) for user, items in users]
    assert tuple(sum(place < depth for place in places) for depth in (100, 10, 1)) == COUNTS[method]
    assert means["RR"] == pytest.approx(sum(1 / (1 + place) for place in places if place < 100) / 158)
