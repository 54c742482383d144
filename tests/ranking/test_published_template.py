"""What the `published` template does as IRanker's public code: a begun answer, constants, and the nearest candidate."""

import pytest

from iranker_verl.errors import UserError
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.nearest import nearest
from iranker_verl.ranking.templates import load, parse
from tests import tiny_models

FILMS = ("Heat (1995)", "Die Hard (1988)", "Alien (1979)")
TASK = RankingTask("t", "recommendation", "rec-game", "Up", tuple(Candidate(f, f) for f in FILMS), (1.0, 0.0, 0.0))
MINE = """
id: mine
candidate: "[{label}] {text}"
answer: label
system: null
user: {recommendation: "{context} {candidates}", routing: "{context} {candidates}", passage: "{context} {candidates}"}
"""


def test_the_prompt_speaks_of_twenty_movies_whatever_is_shown_and_the_answer_has_begun():
    template = load("published")
    system, user, begun = template.messages(template.start(TASK))
    assert (system["role"], begun) == ("system", {"role": "assistant", "content": "<think>"})
    assert "20 candidate movies" in user["content"]


def test_the_prompt_ends_where_the_answer_has_begun():
    template = load("published")
    chat = ChatEncoder(tiny_models.tokenizer())
    messages = template.messages(template.start(TASK))
    assert chat.text(messages) == chat.text(messages[:-1]) + "<think>"
    assert chat.encode(messages)[: len(chat.encode(messages[:-1]))] == chat.encode(messages[:-1])


@pytest.mark.parametrize(
    ("response", "index"),
    [
        ("hm</think><answer>die hard</answer>", 1),  # "ie " alone is shared with it: the case counts
        ("hm</think><answer>Die Hard</answer>", 1),
        ("I have thought about this for long, and it has to be Alien", 2),
        (
            "Alien, I thought at first. But no: of these three I am least likely to watch Die Hard",
            1,
        ),  # the last 40 characters
        ("", 0),
        ("<answer></answer>", 0),
        ("\n", 0),
    ],
)
def test_the_nearest_candidate(response, index):
    assert nearest(response, FILMS) == index


def test_words_decide_among_equal_runs_of_characters():
    assert nearest("<answer>the sky blue</answer>", ["xx the skyy", "blue the sky", "the skyy"]) == 1


def test_what_names_no_candidate_excludes_the_nearest_and_is_counted():
    state = load("published").start(TASK)
    step = state.step("hm</think><answer>Die Hard</answer>")
    assert (step.excluded, step.malformed) == ("Die Hard (1988)", True)
    assert load("think-text").start(TASK).step("hm</think><answer>Die Hard</answer>").excluded == "Alien (1979)"
    exact = load("published").start(TASK).step("hm</think><answer>Heat (1995)</answer>")
    assert (exact.excluded, exact.malformed) == ("Heat (1995)", False)


def test_defaults_that_are_written_out_leave_the_hash_as_it_is():
    plain = parse(MINE, "mine")
    assert parse(MINE + "begin: null\nunreadable: last\nkind: exclusion\n", "mine") == plain
    assert parse(MINE + "begin: 'So: '\n", "mine").hash != plain.hash
    assert parse(MINE + "unreadable: nearest\n", "mine").hash != plain.hash


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("begin: 3", "begin has to be a text"),
        ("begin: ''", "begin has to be a text"),
        ("unreadable: first", "not last or nearest"),
        ("unreadable: nearest\nkind: direct", "unreadable is for kind exclusion"),
        ("starts: x", "field starts is unknown"),
    ],
)
def test_a_wrong_field_is_said(more, said):
    with pytest.raises(UserError, match=said):
        parse(MINE + more, "mine")
