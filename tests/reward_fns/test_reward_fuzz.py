"""A small share of the fuzzer's cases (`python -m benchmarks.reward` runs a million), and that it would find something."""

from benchmarks import reward_fuzz
from reward_fns.answers import Exclusion, Ranking


def test_random_answers():
    assert reward_fuzz.fuzz(1500, seed=7) == []


def test_the_fuzzer_finds_a_parser_that_guesses(monkeypatch):
    monkeypatch.setattr(reward_fuzz, "parse_exclusion", lambda response, texts: Exclusion(0, "ok"))
    found = reward_fuzz.fuzz(50, seed=7)
    assert any("a wrong candidate" in case for case in found)


def test_the_fuzzer_finds_what_pays_too_much_and_what_crashes(monkeypatch):
    true = reward_fuzz.exclusion.compute_score

    def generous(source, answer, truth, **settings):
        parts = true(source, answer, truth, **settings)
        return parts | {"score": parts["score"] + 0.01 * len(answer)}

    monkeypatch.setattr(reward_fuzz.exclusion, "compute_score", generous)
    assert any("more than a perfect answer" in case for case in reward_fuzz.fuzz(50, seed=7))
    monkeypatch.setattr(reward_fuzz, "parse_ranking", lambda response, texts: Ranking((0, 0), "ok"))
    assert any("no order" in case for case in reward_fuzz.fuzz(50, seed=7))
    monkeypatch.setattr(reward_fuzz, "parse_ranking", lambda response, texts: 1 / 0)
    assert all("ZeroDivisionError" in case for case in reward_fuzz.fuzz(5, seed=7))
