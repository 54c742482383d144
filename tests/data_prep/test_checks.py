"""What a prepared folder promises is proved from its files: each fault fails its own check, and no other."""

import copy
import hashlib
import json
import random
from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_folder import row, rows, write
from scipy.stats import chi2

from data_prep.checks.columns import ROWS
from data_prep.checks.folder import check_folder
from data_prep.checks.positions import EXPECTED, p_values
from iranker_verl.errors import UserError

NAMES = [
    "files",
    "data hash",
    "groups",
    "examples",
    "near-duplicates",
    "tasks",
    "history",
    "time",
    "candidate ids",
    "candidate texts",
    "position",
]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture
def sides():
    return rows(90), rows(30, start=90)


def failing(folder, manifest):
    found = check_folder(folder, manifest)
    assert [c.name for c in found] == NAMES
    return {c.name: c.detail for c in found if not c.ok}


def info(one):
    return one["extra_info"]


def of(side, dataset):
    return next(r for r in side if r["data_source"] == dataset)


def test_a_sound_folder(folder, sides):
    found = {c.name: c for c in check_folder(folder, write(folder, *sides))}
    assert list(found) == NAMES and all(c.ok for c in found.values())
    counted = {name: c.counted for name, c in found.items()}
    assert counted == {
        "files": 2,
        "data hash": 1,
        "groups": 120,
        "examples": 40,
        "near-duplicates": 80,  # routing and passage
        "tasks": 120,
        "history": 40,
        "time": 0,  # not split by time
        "candidate ids": 120,
        "candidate texts": 120,
        "position": 120,
    }
    assert found["position"].detail.startswith("p = ")
    assert all(c.how and "\n" not in c.how for c in found.values())


def test_an_empty_side(folder, sides):
    assert not failing(folder, write(folder, [], sides[0], split="test"))
    assert not failing(folder, write(folder, sides[0], []))


# ------------------------------------------------------------------------------------------------------------ faults


def test_a_leaked_user(folder, sides):
    train, test = sides
    of(test, "rec-movie")["extra_info"]["group"] = info(of(train, "rec-movie"))["group"]
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["groups"]
    assert "'user 0' of rec-movie is in train.parquet row 0 and in test.parquet row 0" in faults["groups"]


def test_two_users_who_are_shown_alike(folder, sides):
    train, test = sides
    own, other = of(train, "rec-movie"), of(test, "rec-movie")
    truth, target = own["reward_model"]["ground_truth"], own["reward_model"]["ground_truth"]["target"]
    ids = [f"other {n}" for n in range(4)]
    texts = [text if n == target else f"negative {n}" for n, text in enumerate(truth["candidates"])]
    context = {"context": info(own)["context"], "history": [f"h{n}" for n in range(5)]}
    test[test.index(other)] = row("rec-movie", 500, ids=ids, texts=texts, target=target, **context)
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["examples"]
    assert faults["examples"].startswith(
        "a user of rec-movie in train.parquet row 0 and another in test.parquet row 0 "
    )
    texts[target] = "another best one"
    test[0] = row("rec-movie", 500, ids=ids, texts=texts, target=target, **context)
    assert not failing(folder, write(folder, train, test))


def test_equal_users_of_two_datasets_are_two_users(folder, sides):
    train, test = sides
    test.append(row("rec-game", 500, group="user 0"))
    assert not failing(folder, write(folder, train, test))


def test_a_leaked_query_of_another_dataset(folder, sides):
    train, test = sides
    query = info(of(train, "router-cost"))["group"]
    test.append(row("router-balance", 500, group=query, context=f"Query: {query}\nPreference: both"))
    faults = failing(folder, write(folder, train, test))
    assert set(faults) == {"groups", "near-duplicates"}
    assert "1.00 alike" in faults["near-duplicates"]


@pytest.mark.parametrize("dataset", ["router-cost", "passage-5"])
def test_a_near_duplicate(folder, sides, dataset):
    train, test = sides
    one, other = (
        "what is the tallest mountain in the north of norway",
        "What is the tallest mountain in the North of Norway?!",
    )
    near = "what is the tallest mountain in north of sunny norway"  # 8 words of 10 in all
    train.append(row(dataset, 500, context=one, group=one))
    test.append(row(dataset, 501, context=near, group=near))
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["near-duplicates"]
    assert "train.parquet row 90" in faults["near-duplicates"] and "test.parquet row 30" in faults["near-duplicates"]
    assert "are 0.90 alike" in faults["near-duplicates"]  # by hand: 9 distinct words, all of them among the other's 10
    assert not failing(folder, write(folder, train, test, near_duplicate=0.95))
    test[-1] = row(dataset, 501, context=other, group=other)  # case and marks only: alike at any threshold
    assert list(failing(folder, write(folder, train, test, near_duplicate=1.0))) == ["near-duplicates"]


def test_near_duplicates_on_one_side_are_fine(folder, sides):
    train, test = sides
    for i, end in enumerate(("norway", "sweden")):
        query = f"what is the tallest mountain in the north of {end}"
        train.append(row("passage-5", 500 + i, context=query))
    assert not failing(folder, write(folder, train, test))


def test_a_passage_query_behind_a_group_that_hides_it(folder, sides):
    train, test = sides
    query = "what is the tallest mountain in the north of norway"
    train.append(row("passage-5", 500, context=query, group="topic 1"))
    test.append(row("passage-5", 501, context=query, group="topic 2"))
    assert list(failing(folder, write(folder, train, test))) == ["near-duplicates"]


def test_a_history_item_among_the_candidates(folder, sides):
    train, test = sides
    info(test[0])["history_ids"].append(info(test[0])["candidate_ids"][2])
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["history"]
    assert faults["history"] == f"test.parquet row 0: candidate '{info(test[0])['candidate_ids'][2]}' is in the history"


def test_a_candidate_that_reads_like_an_item_of_the_history(folder, sides):
    """By another id, as films are that a catalogue lists twice."""
    train, test = sides
    one = of(test, "rec-movie")
    texts = one["reward_model"]["ground_truth"]["candidates"]
    texts[1] = info(one)["context"].split("; ")[2]
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["history"]
    assert faults["history"] == f"test.parquet row {test.index(one)}: '{texts[1]}' is shown in the history, too"


def test_a_part_of_a_title_is_no_item_of_the_history(folder, sides):
    train, test = sides
    one = of(test, "rec-movie")
    one["reward_model"]["ground_truth"]["candidates"][1] = "B"
    info(one)["context"] = "A; B; C; D; E; F; G"  # five items, of which one or two hold the separator
    assert len(info(one)["history_ids"]) == 5 and not failing(folder, write(folder, train, test))


@pytest.mark.parametrize("relevance", [None, [0.0, 2.0, 1.0, 0.0]])
def test_one_text_with_two_relevances(folder, sides, relevance):
    train, test = sides
    one = of(train, "passage-5")
    truth = one["reward_model"]["ground_truth"]
    best = 1 if relevance else truth["target"]
    truth.update(relevance=relevance, target=best)
    other = next(i for i in range(4) if i != best and (not relevance or i != 3))
    truth["candidates"][other] = truth["candidates"][best]
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["candidate texts"]
    words = f"train.parquet row {train.index(one)}: '{truth['candidates'][best]}' is shown twice, with relevance "
    assert faults["candidate texts"] in (words + "0 and 1", words + "0 and 2", words + "1 and 2")


def test_equal_texts_of_one_relevance_are_no_fault(folder, sides):
    train, test = sides
    truth = of(train, "passage-5")["reward_model"]["ground_truth"]
    first, second, _ = (i for i in range(4) if i != truth["target"])
    truth["candidates"][first] = truth["candidates"][second]
    assert not failing(folder, write(folder, train, test))


def test_a_history_item_of_another_row_is_fine(folder, sides):
    train, test = sides
    info(train[0])["history_ids"] = [info(train[3])["candidate_ids"][0]]
    info(train[0])["candidate_ids"] = ["a", "b", "c", "d"]
    assert not failing(folder, write(folder, train, test))


def test_an_id_twice_in_a_row(folder, sides):
    train, test = sides
    info(train[1])["candidate_ids"][3] = info(train[1])["candidate_ids"][0]
    info(train[7])["candidate_ids"][1] = info(train[7])["candidate_ids"][2]
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["candidate ids"]
    assert faults["candidate ids"].startswith("train.parquet row 1: candidate 'llm-")


def test_a_task_on_both_sides(folder, sides):
    train, test = sides
    info(test[4])["task_id"] = info(train[4])["task_id"]
    test[4]["data_source"] = train[4]["data_source"]
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["tasks"]
    assert "is in train.parquet row 4 and in test.parquet row 4" in faults["tasks"]


def test_a_task_twice(folder, sides):
    train, test = sides
    train += [again(train[2]), again(train[5])]
    assert list(failing(folder, write(folder, train, test))) == ["tasks"]
    assert not failing(folder, write(folder, train, test, orders=2))
    train += [again(train[5])]
    faults = failing(folder, write(folder, train, test, orders=2))
    assert faults == {"tasks": "'passage-5:5' of passage-5 is 3 times in train.parquet, first in row 5"}


def again(one):
    return copy.deepcopy(one)


def states(count, start=0):
    """The paper's states of tasks with four candidates: of two, three and four, the positive at random."""
    dice, made = random.Random(start), []
    for number in range(start, start + count):
        for size in (2, 3, 4):
            ids = [f"{number}-{i}" for i in range(size)]
            made.append(
                row("rec-music", number, kind="state", ids=ids, target=dice.randrange(size), group=f"user {number}")
            )
    return made


def test_states(folder):
    train = states(40)
    test = [row("rec-music", 100 + i, target=i % 4) for i in range(20)]
    assert not failing(folder, write(folder, train, test, rows="states"))
    # a state of a training task in test, whoever its user is said to be
    test.append(row("rec-music", 7, kind="state", ids=["a", "b"], group="nobody"))
    assert list(failing(folder, write(folder, train, test, rows="states"))) == ["tasks"]
    # a state twice
    train += states(1)[:1]
    assert "3 times" not in failing(folder, write(folder, train, test[:-1], rows="states"))["tasks"]


def test_a_biased_position(folder, sides):
    train, test = sides
    for one in train:
        one["reward_model"]["ground_truth"]["target"] = 0
    faults = failing(folder, write(folder, train, test))
    assert list(faults) == ["position"]
    assert "train.parquet, 4 candidates" in faults["position"]
    assert "90 at place 1, where 22 are expected" in faults["position"]


def test_a_bias_of_one_side_and_size_does_not_drown(folder):
    train = states(200)
    test = [row("rec-music", 1000 + i, target=3) for i in range(30)]  # a fixed order at test, as published for routing
    faults = failing(folder, write(folder, train, test, rows="states"))
    assert list(faults) == ["position"] and "test.parquet, 4 candidates" in faults["position"]


def test_graded_rows_count_every_best_candidate(folder):
    dice = random.Random(1)
    train = []
    for i in range(400):
        grades = [0.0, 1.0, 2.0, 2.0]
        dice.shuffle(grades)
        train.append(row("passage-5", i, context=f"query{i} of place{i}", relevance=grades))
    found = {c.name: c for c in check_folder(folder, write(folder, train, []))}
    # the first best of two would stand at place 1 for half of the rows, and at place 4 never
    assert found["position"].ok and found["position"].counted == 800


@pytest.mark.parametrize(
    "truth",
    [
        {"target": 4},
        {"target": -1},
        {"target": None},
        {"relevance": [1.0, 0.0]},
        {"relevance": [1.0, 1.0, 1.0, 1.0]},
        {"relevance": [1.0, float("nan"), 0.0, 0.0]},
    ],
)
def test_a_row_without_a_positive(folder, sides, truth):
    train, test = sides
    train[11]["reward_model"]["ground_truth"] |= truth
    faults = failing(folder, write(folder, train, test))
    assert faults == {"position": "train.parquet row 11: no best one among 4 candidates"}


# -------------------------------------------------------------------------------------------------------- split by time


def by_time():
    train = [row("rec-movie", i, target=i % 4, time=100.0 + i) for i in range(20)]
    # the users of training go on, and their positives come later
    test = [
        row("rec-movie", i, target=i % 4, time=200.0 + i, group=f"user {i}", task_id=f"later {i}") for i in range(20)
    ]
    return train, test


def test_a_split_by_time(folder):
    train, test = by_time()
    manifest = write(folder, train, test, split="time")
    assert not failing(folder, manifest)
    assert {c.name: c.counted for c in check_folder(folder, manifest)}["time"] == 40
    # the same rows, said to be split by user
    assert list(failing(folder, write(folder, train, test))) == ["groups", "examples"]


@pytest.mark.parametrize("time", [200.0, 201.0, 1e12])
def test_a_positive_after_the_cut(folder, time):
    train, test = by_time()
    info(train[6])["time"] = time
    faults = failing(folder, write(folder, train, test, split="time"))
    assert faults == {
        "time": f"rec-movie: time {time:.15g} of train.parquet row 6 is not before 200 of test.parquet row 0"
    }


def test_a_test_positive_before_the_cut(folder):
    train, test = by_time()
    info(test[9])["time"] = 118.5
    faults = failing(folder, write(folder, train, test, split="time"))
    assert faults == {"time": "rec-movie: time 119 of train.parquet row 19 is not before 118.5 of test.parquet row 9"}


@pytest.mark.parametrize("time", [None, float("nan")])
def test_a_row_without_a_time(folder, time):
    train, test = by_time()
    info(test[3])["time"] = time
    faults = failing(folder, write(folder, train, test, split="time"))
    assert faults == {"time": "test.parquet row 3: time is nan"}


def test_cuts_are_of_each_dataset(folder):
    train, test = by_time()
    train.append(row("rec-game", 900, time=1e6))  # after the other's cut; nothing of it is in test
    assert not failing(folder, write(folder, train, test, split="time"))
    test.append(row("rec-game", 901, time=1e5))
    assert list(failing(folder, write(folder, train, test, split="time"))) == ["time"]


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_rewritten_file(folder, sides):
    manifest = write(folder, *sides)
    table = pq.read_table(folder / "test.parquet")
    pq.write_table(table, folder / "test.parquet", compression="none")
    faults = failing(folder, manifest)
    assert list(faults) == ["files"] and faults["files"].startswith("test.parquet has ")


def test_a_changed_row(folder, sides):
    train, test = sides
    manifest = write(folder, train, test)
    test[2]["reward_model"]["ground_truth"]["candidates"][0] += "."
    write(folder, train, test)
    assert set(failing(folder, manifest)) == {"files", "data hash"}
    manifest = write(folder, train, test)
    manifest["data_hash"] = "0" * 16
    assert list(failing(folder, manifest)) == ["data hash"]


def test_rows_in_another_order(folder, sides):
    train, test = sides
    promised = write(folder, train, test)["data_hash"]
    manifest = write(folder, train[::-1], test)
    assert list(failing(folder, manifest | {"data_hash": promised})) == ["data hash"]


@pytest.mark.parametrize("spoil", ["truncated", "missing", "empty", "text"])
def test_a_broken_file_is_one_failing_check(folder, sides, spoil):
    manifest = write(folder, *sides)
    path = folder / "train.parquet"
    content = path.read_bytes()
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"x" * len(content)}[spoil])
    (only,) = check_folder(folder, manifest)
    assert only.name == "files" and not only.ok and only.detail.startswith("train.parquet")


def refingerprint(folder, manifest, name="train.parquet"):
    content = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return manifest


def test_a_broken_file_that_the_manifest_vouches_for(folder, sides):
    manifest = write(folder, *sides)
    (folder / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"train\.parquet: unreadable after row 0"):
        check_folder(folder, refingerprint(folder, manifest))


def test_a_file_of_another_schema(folder, sides):
    manifest = write(folder, *sides)
    table = pq.read_table(folder / "train.parquet")
    pq.write_table(table.drop_columns("extra_info"), folder / "train.parquet")
    with pytest.raises(UserError, match="column 'extra_info' is missing"):
        check_folder(folder, refingerprint(folder, manifest))
    wrong = table["data_source"]
    pq.write_table(table.set_column(5, "extra_info", wrong), folder / "train.parquet")
    with pytest.raises(UserError, match="not in version 2 of the schema"):
        check_folder(folder, refingerprint(folder, manifest))


def test_a_row_without_a_group(folder, sides):
    train, test = sides
    info(train[70])["group"] = None
    with pytest.raises(UserError, match=r"train\.parquet row 70: extra_info\.group is missing"):
        check_folder(folder, write(folder, train, test))


def test_offences_beyond_the_first_batch(folder):
    train = [row("rec-game", i, target=i % 4) for i in range(ROWS + 300)]
    info(train[ROWS + 200])["history_ids"] = [info(train[ROWS + 200])["candidate_ids"][0]]
    faults = failing(folder, write(folder, train, []))
    assert list(faults) == ["history"] and faults["history"].startswith(f"train.parquet row {ROWS + 200}:")


# ------------------------------------------------------------------------------------------------------------ properties


@given(st.integers(2, 12), st.integers(0, 400), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_chi_square_by_its_definition(size, count, dice):
    counts = np.bincount([dice.randrange(size) for _ in range(count)], minlength=size)
    found = p_values({size: counts})
    if count < EXPECTED * size:
        assert not found
    else:
        statistic = sum((c - count / size) ** 2 / (count / size) for c in counts)
        assert found[size] == pytest.approx(chi2.sf(statistic, size - 1))


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_sound_folders_pass_and_one_leak_is_found(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("any")
    dice = random.Random(seed)
    count = dice.randrange(1, 25)
    train, test = rows(count, seed=seed), rows(dice.randrange(1, 25), start=count, seed=seed)
    found = check_folder(folder, write(folder, train, test))
    assert [c.name for c in found if not c.ok] in ([], ["position"])  # a fair draw may look unfair
    one = dice.choice(train)
    two = copy.deepcopy(one)
    info(two)["task_id"] = "new"
    test.insert(dice.randrange(len(test) + 1), two)
    failed = {c.name for c in check_folder(folder, write(folder, train, test)) if not c.ok}
    leaks = {"groups", "examples" if one["data_source"] == "rec-movie" else "near-duplicates"}
    assert failed - {"position"} == leaks


def test_a_check_as_json(folder, sides):
    found = [asdict(c) for c in check_folder(folder, write(folder, *sides))]
    assert json.loads(json.dumps(found)) == found
