"""SASRec learns what follows what, and looks back only (what it shares with BPR: test_histories)."""

from dataclasses import replace

import pytest
import torch
from id_worlds import mrr, successors, task

from iranker_verl.evaluation.baselines import Context, make_baselines
from iranker_verl.evaluation.baselines.sasrec import Network, SasRec, Settings

SMALL = Settings(width=16, blocks=1, rounds=3)


def fitted(tasks, seed=0, settings=SMALL):
    baseline = SasRec(Context(seed, log=lambda _: None), settings)
    baseline.fit(tasks)
    return baseline


def test_the_successor_is_learned():
    train, test = successors(150), successors(40, seed=1)
    popularity = make_baselines(["popularity"])[0]
    popularity.fit(train)
    baseline = fitted(train, settings=Settings(rounds=40))
    assert mrr(baseline, test) > 0.95
    assert mrr(popularity, test) < 0.6


def test_a_history_of_unseen_items_falls_back_to_what_is_chosen_first():
    # everybody begins with "hit"; only the start sign can tell
    train = [task(str(i), ["hit", f"x{i % 9}"], f"y{i % 7}", ["n"]) for i in range(60)]
    model = fitted(train, settings=Settings(rounds=15))
    (ranking,) = model.rank([task("new", ["never", "seen"], "x1", ["y2", "hit", "unseen"])])
    assert ranking[0] == "hit" and ranking[-1] == "unseen"


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Network(7, 5, replace(SMALL, blocks=2, heads=2)).eval()
        for table in (made.embedding, made.position):
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


def test_items_enter_times_the_root_of_the_width_and_places_as_they_are():
    plain = Network(7, 5, replace(SMALL, width=16, blocks=0)).eval()
    with torch.no_grad():
        scores = plain(torch.tensor([[7, 2, 3]]), torch.tensor([3]))[0]
        entered = 4 * plain.embedding.weight[[7, 2, 3]] + plain.position.weight[[2, 1, 0]]
        torch.testing.assert_close(scores, plain.norm(entered) @ plain.embedding.weight[:7].T)


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
    assert model.learned["rec-movie"][1].length == 4
    assert sorted(model.rank([task("3", long, "l3", ["l4"]), task("4", ["l1"], "l3", ["l4"])])[0]) == ["l3", "l4"]
