"""The one recommendation sampler: what a task is made of, what is dropped, how the split is drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.recommendation import Interactions, item_text, make_tasks
from data_prep.sampling import Options
from iranker_verl.errors import UserError

SMALL = Options(history=2, candidates=3)


def interactions(events, items="abcdefgh"):
    data = Interactions()
    data.texts = {item: f"Title {item}" for item in items}
    for user, item, time in events:
        data.events.setdefault(user, []).append((float(time), item))
    return data


def only(result):
    (task,) = result.train + result.test
    return task


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        (("Toy Story", "1995", ["Animation", "Comedy"]), "Toy Story (1995), Animation, Comedy"),
        (("Toy Story (1995)", "1995", []), "Toy Story (1995)"),
        (("Nadja (1994)", "", ["Drama", "unknown", ""]), "Nadja (1994), Drama"),
        (("Memory for Wii &amp; Gamecube", "", []), "Memory for Wii & Gamecube"),
        (("Rock &amp;amp; Roll", "", []), "Rock & Roll"),
        (("  two\t lines \n<br/> and <b>bold</b>", "", []), "two lines and bold"),
        (('<span class="a-size-medium a-text-normal', "", []), ""),
        (("I <3 You", "", []), "I <3 You"),
        (("1 < 2 > 0", "", []), "1 < 2 > 0"),
        (("V", "V", ["unknown"]), "V"),
        (("", "1995", ["Drama"]), ""),
    ],
)
def test_item_text(given_, text):
    assert item_text(*given_) == text


def test_last_item_is_the_positive_and_the_ones_before_it_are_the_context():
    # Time order is c(1) a(2) d(3) b(5): positive b, history a, d; c is out of the window but seen.
    data = interactions([("u", "a", 2), ("u", "b", 5), ("u", "c", 1), ("u", "d", 3)])
    task = only(make_tasks("rec-movie", data, SMALL))
    assert (task.id, task.scenario, task.dataset) == ("rec-movie:u", "recommendation", "rec-movie")
    assert task.context == "Title a; Title d"
    assert task.candidates[task.target].id == "b"
    assert len(task.candidates) == 3
    assert {c.id for c in task.candidates} <= set("befgh")
    assert not +make_tasks("rec-movie", data, SMALL).dropped


def test_ties_in_time_keep_the_order_of_the_file():
    data = interactions([("u", "b", 7), ("u", "a", 7), ("u", "d", 7), ("u", "c", 3)])
    task = only(make_tasks("rec-game", data, SMALL))
    assert (task.context, task.candidates[task.target].id) == ("Title b; Title a", "d")


def test_a_repeated_item_counts_at_its_first_place():
    # a(1) b(2) a(3) c(4) b(5): a b c are left, and c is last.
    data = interactions([("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("u", "c", 4), ("u", "b", 5)])
    result = make_tasks("rec-game", data, SMALL)
    assert (only(result).context, only(result).candidates[only(result).target].id) == ("Title a; Title b", "c")
    assert +result.dropped == {"events: repeated item": 2}


def test_events_of_untitled_items_and_short_users_are_dropped_and_counted():
    data = interactions(
        # x has no title: u keeps three items, v two, and three are needed.
        [(user, item, time) for user, items in (("u", "axbc"), ("v", "axb")) for time, item in enumerate(items)]
    )
    data.add_item("x", "<br>")
    data.add_item("a", "Again")
    result = make_tasks("rec-movie", data, SMALL)
    assert [t.id for t in result.train + result.test] == ["rec-movie:u"]
    assert +result.dropped == {
        "events: item without a title": 2,
        "users: fewer than 3 items": 1,
        "items: no title": 1,
        "items: repeated id": 1,
    }


def test_a_user_who_has_seen_nearly_all_is_dropped():
    seen_3_of_5 = [("u", item, i) for i, item in enumerate("abc")]
    seen_4_of_5 = [("v", item, i) for i, item in enumerate("abcd")]
    result = make_tasks("rec-movie", interactions(seen_3_of_5 + seen_4_of_5, "abcde"), SMALL)
    assert +result.dropped == {"users: fewer than 2 items never seen": 1}
    assert sorted(c.id for c in only(result).candidates) == ["c", "d", "e"]


def test_two_items_with_one_title_stay_two():
    data = interactions([("u", item, i) for i, item in enumerate("abc")], "abcde")
    data.texts["d"] = data.texts["e"] = data.texts["c"]
    task = only(make_tasks("rec-movie", data, SMALL))
    assert sorted(c.id for c in task.candidates) == ["c", "d", "e"]
    assert task.relevance == tuple(float(c.id == "c") for c in task.candidates)


def many(users, items=60, each=8):
    names = [f"i{n}" for n in range(items)]
    return interactions(
        [(f"u{u}", names[(u * 7 + n * 3) % items], n) for u in range(users) for n in range(each)], items=names
    )


def test_the_split_is_by_user_and_disjoint():
    result = make_tasks("rec-movie", many(50), SMALL)
    train, test = ({t.id for t in side} for side in (result.train, result.test))
    assert (len(result.train), len(result.test)) == (40, 10)
    assert not train & test
    assert train | test == {f"rec-movie:u{u}" for u in range(50)}


def test_caps_take_from_the_same_split():
    whole = make_tasks("rec-movie", many(50), SMALL)
    capped = make_tasks("rec-movie", many(50), Options(history=2, candidates=3, max_train=5, max_test=2))
    assert (capped.train, capped.test) == (whole.train[:5], whole.test[:2])


def test_one_seed_one_result_and_another_seed_another():
    first, again = (make_tasks("rec-movie", many(30), SMALL) for _ in range(2))
    other = make_tasks("rec-movie", many(30), Options(history=2, candidates=3, seed=2))
    assert (first.train, first.test) == (again.train, again.test)
    assert {t.id for t in first.test} != {t.id for t in other.test}


def test_the_positive_stands_anywhere_and_negatives_are_uniform():
    options = Options(history=3, candidates=5)
    result = make_tasks("rec-movie", many(1000), options)
    tasks = result.train + result.test
    places = [sum(t.target == place for t in tasks) for place in range(5)]
    # 1000 draws of 1/5: 200 each, standard deviation 12.6; five of them.
    assert all(137 <= n <= 263 for n in places), places
    drawn = {f"i{n}": 0 for n in range(60)}
    for t in tasks:
        for c, relevance in zip(t.candidates, t.relevance, strict=True):
            drawn[c.id] += relevance == 0
    # 4000 draws over 60 items that are symmetric under the construction: 67 each, standard deviation 8.
    assert all(27 <= n <= 107 for n in drawn.values()), drawn


@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdefghij"), st.integers(0, 5)), max_size=60),
    st.integers(1, 4),
    st.integers(2, 5),
)
def test_every_task_is_what_the_rules_say(events, history, candidates):
    data = interactions(events, "abcdefghij")
    result = make_tasks("rec-music", data, Options(history=history, candidates=candidates))
    short = sum(n for reason, n in result.dropped.items() if reason.startswith("users"))
    tasks = result.train + result.test
    assert len(tasks) + short == len(data.events)
    for task in tasks:
        user = task.id.removeprefix("rec-music:")
        sequence = []
        for _, _, item in sorted((e[2], n, e[1]) for n, e in enumerate(events) if e[0] == user):
            if item not in sequence:
                sequence.append(item)
        assert len(task.candidates) == candidates == len({c.id for c in task.candidates})
        assert task.candidates[task.target].id == sequence[-1]
        assert task.context == "; ".join(f"Title {item}" for item in sequence[-history - 1 : -1])
        assert {c.id for c in task.candidates} & set(sequence) == {sequence[-1]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 1}, "candidates is 1; it has to be 2 or more"),
        ({"history": 0}, "history is 0"),
        ({"test_fraction": 0.0}, "between 0 and 1"),
        ({"test_fraction": 1.0}, "between 0 and 1"),
        ({"max_train": 0}, "max_train is 0"),
        ({"max_chars": 0}, "max_chars is 0"),
    ],
)
def test_senseless_options_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Options(**values)
