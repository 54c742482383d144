"""SASRec learns what follows what; it looks back only, and knows nothing but ids."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from id_worlds import mrr, successors, task, tastes

from iranker_verl.evaluation.rivals import Context, make
from iranker_verl.evaluation.rivals.sasrec import Network, SasRec, Settings

SMALL = Settings(width=16, blocks=1, epochs=3)


def fitted(tasks, seed=0, settings=SMALL):
    rival = SasRec(Context(seed, say=lambda _: None), settings)
    rival.fit(tasks)
    return rival


@pytest.fixture(scope="module")
def world():
    return successors(150), successors(40, seed=1)


@pytest.fixture(scope="module")
def rival(world):
    return fitted(world[0])


def test_the_successor_is_learned(world):
    train, test = world
    popularity = make(["popularity"])[0]
    popularity.fit(train)
    rival = fitted(train, settings=Settings(epochs=40))
    assert mrr(rival, test) > 0.95
    assert mrr(popularity, test) < 0.6


def test_two_tastes_are_found():
    assert mrr(fitted(tastes(120), settings=Settings(epochs=15)), tastes(40, seed=1)) > 0.9


def test_a_seed_gives_the_same_again_and_torchs_own_state_stays(world, rival):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again, other = fitted(world[0]), fitted(world[0], seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    tables = [m._models["rec-movie"][1].embedding.weight for m in (rival, again, other)]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    assert rival.rank(world[1]) == again.rank(world[1]) == rival.rank(world[1])


def test_the_order_of_candidates_and_of_tasks_decides_nothing(world, rival):
    train, test = world
    turned = [replace(t, candidates=t.candidates[::-1], relevance=t.relevance[::-1]) for t in test]
    assert rival.rank(turned) == rival.rank(test)
    assert rival.rank(test[::-1]) == rival.rank(test)[::-1]
    assert fitted(train[::-1]).rank(test) == rival.rank(test)
    blind = [replace(t, relevance=t.relevance[::-1]) for t in test]
    assert rival.rank(blind) == rival.rank(test)


def test_items_never_seen_come_last_in_no_order_of_theirs(rival):
    last = Counter()
    for i in range(200):
        ranking = rival.rank([task(str(i), ["s1", "s2"], "s3", ["new1", "s4", "new2"])])[0]
        assert set(ranking[2:]) == {"new1", "new2"}
        last[ranking[-1]] += 1
    assert min(last.values()) > 60


def test_what_it_does_not_apply_to(rival):
    tasks = [
        task("1", [], "s1", ["s2"]),
        task("2", ["s1"], "s2", ["s3"], scenario="passage", dataset="passage-5"),
        task("3", ["s1"], "s2", ["s3"], dataset="rec-music"),  # a dataset without training
        task("4", ["s1"], "s2", ["s3"]),
    ]
    ranked = rival.rank(tasks)
    assert ranked[:3] == [None] * 3 and sorted(ranked[3]) == ["s2", "s3"]
    assert fitted(tasks[:2]).rank(tasks) == [None] * 4


def test_a_history_of_unseen_items_falls_back_to_what_is_chosen_first():
    # everybody begins with "hit"; only the start sign can tell
    train = [task(str(i), ["hit", f"x{i % 9}"], f"y{i % 7}", ["n"]) for i in range(60)]
    model = fitted(train, settings=Settings(epochs=15))
    (ranking,) = model.rank([task("new", ["never", "seen"], "x1", ["y2", "hit", "unseen"])])
    assert ranking[0] == "hit" and ranking[-1] == "unseen"


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Network(7, 5, replace(SMALL, blocks=2, heads=2)).eval()
        for table in (made.embedding, made.place):
            torch.nn.init.normal_(table.weight)  # large enough for differences to show
    return made


def test_a_batch_is_what_the_paper_trains_on(network):
    start = network.start
    inputs, lengths, targets = network.batch([(1, 2), (0, 1, 2, 3, 4, 5, 6)])
    assert lengths.tolist() == [2, 5]
    assert inputs.tolist() == [[start, 1, start, start, start], [1, 2, 3, 4, 5]]
    assert targets.tolist() == [[1, 2, -100, -100, -100], [2, 3, 4, 5, 6]]
    inputs, lengths, _ = network.batch([(1, 2), (), (0, 1, 2, 3, 4, 5)], predicting=True)
    assert lengths.tolist() == [3, 1, 5]
    assert inputs.tolist() == [[start, 1, 2, start, start], [start] * 5, [1, 2, 3, 4, 5]]


def test_no_place_sees_a_later_one(network):
    inputs, lengths, _ = network.batch([(1, 2, 3, 4)], predicting=True)
    changed = inputs.clone()
    changed[0, 3] = 6
    with torch.no_grad():
        scores, others = network(inputs, lengths), network(changed, lengths)
    torch.testing.assert_close(scores[0, :3], others[0, :3])
    assert not torch.allclose(scores[0, 3], others[0, 3])
    assert scores.shape == (1, 5, 7)


def test_padding_changes_nothing(network):
    users = [(1, 2), (3, 4, 5, 6), ()]
    with torch.no_grad():
        inputs, lengths, _ = network.batch(users, predicting=True)
        together = network(inputs, lengths)
        for row, user in enumerate(users):
            inputs, own, _ = network.batch([user], predicting=True)
            torch.testing.assert_close(network(inputs, own)[0], together[row, : len(user) + 1])


def test_the_order_of_the_history_counts(network):
    with torch.no_grad():
        inputs, lengths, _ = network.batch([(1, 2, 3), (2, 1, 3)], predicting=True)
        scores = network(inputs, lengths)
    assert not torch.allclose(scores[0, 3], scores[1, 3])


def test_the_loss_is_the_mean_over_all_items_of_minus_log_probability(network):
    users = [(1, 2), (3, 4, 5)]
    with torch.no_grad():
        by_hand = []
        for user in users:
            for place, item in enumerate(user):
                # the places of a training row are counted from the end of the whole row
                inputs, lengths, _ = network.batch([user])
                probabilities = network(inputs, lengths)[0, place].softmax(0)
                by_hand.append(-probabilities[item].log())
        torch.testing.assert_close(network.loss(users), torch.stack(by_hand).mean())


def test_training_on_long_and_short_sequences_keeps_the_last_items():
    long = [f"l{i}" for i in range(30)]
    model = fitted([task("1", long, "p", ["n"]), task("2", ["l1"], "l2", ["n"])], settings=replace(SMALL, longest=4))
    assert model._models["rec-movie"][1].length == 4
    assert sorted(model.rank([task("3", long, "l3", ["l4"]), task("4", ["l1"], "l3", ["l4"])])[0]) == ["l3", "l4"]


def test_one_user_is_enough_to_run():
    model = fitted([task("1", ["a"], "b", ["c"])])
    assert sorted(model.rank([task("2", ["a"], "b", ["c"])])[0]) == ["b", "c"]
