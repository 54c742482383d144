"""Sequences of item ids are what training tasks tell, and nothing else."""

from id_worlds import task

from iranker_verl.evaluation.rivals.histories import applies, histories, scores


def test_a_sequence_is_the_history_and_the_positive_of_each_dataset():
    tasks = [
        task("2", ["b", "a", "b"], "c", ["x"]),
        task("1", ["c"], "d", ["y"]),
        task("3", ["a"], "b", ["z"], dataset="rec-game"),
        task("4", [], "q", ["r"]),  # no ids: nothing to learn from
        task("5", ["p"], "q", ["r"], scenario="passage", dataset="passage-5"),
    ]
    found = histories(tasks)
    assert found == histories(tasks[::-1])
    assert set(found) == {"rec-movie", "rec-game"}
    movies = found["rec-movie"]
    assert dict(movies.items) == {"a": 0, "b": 1, "c": 2, "d": 3}  # no item that was only refused
    assert movies.users == ((2, 3), (1, 0, 1, 2))
    assert movies.known(["d", "x", "a"]) == [3, 0]
    assert [applies(t) for t in tasks] == [True, True, True, False, False]


def test_some_users_are_held_out_and_some_are_not():
    data = histories([task(str(i), [f"h{i}"], "p", ["n"]) for i in range(10)])["rec-movie"]
    learned, held = data.split(0.2, seed=3)
    assert len(held) == 2 and sorted(learned + held) == sorted(data.users)
    assert data.split(0.2, seed=3) == (learned, held)
    assert any(data.split(0.2, seed)[1] != held for seed in range(5))
    assert [len(part) for part in data.split(0.001, seed=3)] == [9, 1]
    one = histories([task("1", ["a"], "b", ["c"])])["rec-movie"]
    assert one.split(0.5, seed=0) == ([(0, 1)], [])


def test_items_never_seen_score_lowest_and_alike():
    t = task("1", ["a"], "b", ["new", "a", "newer"])
    by_id = dict(zip([c.id for c in t.candidates], scores(t, {"a": 0, "b": 1}, [-5.0, 2.0]), strict=True))
    assert by_id == {"a": -5.0, "b": 2.0, "new": float("-inf"), "newer": float("-inf")}
