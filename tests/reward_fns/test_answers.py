"""Reading answers: golden cases, and the properties that hold for any text at all."""

import random
import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reward_fns.answers import (
    MAX_ANSWER_CHARS,
    NO_ANSWER,
    NOT_A_CANDIDATE,
    OK,
    SEVERAL,
    Answer,
    answer_text,
    label,
    label_index,
    normalise,
    parse_exclusion,
)

FILMS = ["Heat (1995)", "Alien (1979)", "Up (2009)"]
MARKUP = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "[A]",
    "[B]",
    "A",
    "Heat (1995)",
    "&amp;",
    "\n",
    " ",
    "1. ",
    '"',
]
hostile_text = st.lists(st.one_of(st.sampled_from(MARKUP), st.text(max_size=8)), max_size=12).map("".join)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("index", "expected"),
    [(0, "A"), (1, "B"), (25, "Z"), (26, "AA"), (27, "AB"), (51, "AZ"), (52, "BA"), (701, "ZZ"), (702, "AAA")],
)
def test_labels_count_as_spreadsheets_do(index, expected):
    assert label(index) == expected
    assert label_index(expected) == index


@given(st.integers(0, 10**9))
def test_a_label_names_its_index(index):
    assert label_index(label(index)) == index


@given(st.text(string.ascii_uppercase, min_size=1, max_size=12))
def test_an_index_has_one_label(text):
    assert label(label_index(text)) == text


def test_what_is_no_label():
    with pytest.raises(ValueError):
        label(-1)
    for text in ("", "a", "A1", "A ", "Ä", "[A]", "\u0410"):  # the last is a Cyrillic A
        with pytest.raises(ValueError):
            label_index(text)


# ---------------------------------------------------------------- which part of a response is the answer


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("[B]", ("[B]", OK)),
        ("  [B]\n", ("[B]", OK)),
        ("<answer>[B]</answer>", ("[B]", OK)),
        ("Well. <answer>\n[B] </answer> Done.", ("[B]", OK)),
        ("<think>A? B?</think><answer>[B]</answer>", ("[B]", OK)),
        ("<think>A?</think>[B]", ("[B]", OK)),
        ("A? no.</think> [B]", ("[B]", OK)),  # the prompt opened the thought
        ("<think><answer>[A]</answer></think><answer>[B]</answer>", ("[B]", OK)),
        ("<think>x</think>[A]</think>[B]", ("[B]", OK)),
        ("x</think><answer>[A]</answer></think><answer>[B]</answer>", ("[B]", OK)),
        ("<answer>[B]</answer> again: <answer>[B]</answer>", ("[B]", OK)),
        ("<answer>[A]</answer><answer>[B]</answer>", (None, SEVERAL)),
        ("<answer> </answer><answer>[B]</answer>", (None, SEVERAL)),
        ("<answer></answer>", (None, NO_ANSWER)),
        ("<answer>[B]", (None, NO_ANSWER)),
        ("</answer>[B]<answer>", (None, NO_ANSWER)),
        ("<think>[B]", (None, NO_ANSWER)),
        ("<think><answer>[B]</answer>", (None, NO_ANSWER)),
        ("<think>a</think> no, <think> wait <answer>[B]</answer>", (None, NO_ANSWER)),
        ("<answer>[B]</answer></think>", (None, NO_ANSWER)),
        ("", (None, NO_ANSWER)),
        (" \n\t", (None, NO_ANSWER)),
        ("<think></think>", (None, NO_ANSWER)),
        ("x" * (MAX_ANSWER_CHARS + 1), (None, NO_ANSWER)),
        (f"<answer>{'x' * (MAX_ANSWER_CHARS + 1)}</answer>", (None, NO_ANSWER)),
    ],
)
def test_the_answer_in_a_response(response, expected):
    assert answer_text(response) == expected


@pytest.mark.parametrize("response", [None, 3, b"[A]", ["[A]"]])
def test_a_response_that_is_no_text_is_no_answer(response):
    assert parse_exclusion(response, FILMS) == Answer(None, NO_ANSWER)


def test_an_answer_as_long_as_the_limit_is_read():
    text = "x" * MAX_ANSWER_CHARS
    assert parse_exclusion(text, ["y", text]) == Answer(1, OK)


# ---------------------------------------------------------------- which candidate it names


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("[A]", 0),
        ("B", 1),
        ("[ C ]", 2),
        ("[C].", 2),
        ("C:", 2),
        ("Alien (1979)", 1),
        ("alien (1979)", 1),
        ("  ALIEN \n (1979) ", 1),
        ('"Alien (1979)"', 1),
        ("\u201cAlien (1979)\u201d", 1),
        ("**Alien (1979)**", 1),
        ('"Alien (1979)".', 1),
        ('"Alien (1979)."', 1),
        ("Alien (1979).", 1),
        ("2. Alien (1979)", 1),
        ("(2) Alien (1979)", 1),
        ("- Alien (1979)", 1),
        ("* Alien (1979)", 1),
        ("\u2022 Alien (1979)", 1),
        ('1. "Alien (1979)"', 1),
        ('"1. Alien (1979)"', 1),
        ("[B] Alien (1979)", 1),
        ("[B] alien (1979).", 1),
        ("\uff21lien\u00a0(1979)", 1),  # full-width A, no-break space
    ],
)
def test_answers_that_name_a_candidate(answer, index):
    assert parse_exclusion(answer, FILMS) == Answer(index, OK)


@pytest.mark.parametrize(
    "answer",
    [
        "[D]",  # three candidates
        "[AA]",
        "[ZZZZ]",
        "b",
        "[b]",
        "[1]",
        "2",
        "[A][B]",
        "[A] [B]",
        "[A], [B]",
        "[A] Alien (1979)",  # label and text disagree
        "[B] Alien",
        "Alien",
        "Alien (1979) is the worst",
        "The answer is [B]",
        "not Alien (1979)",
        "...",
        '""',
        "<answer>",
    ],
)
def test_answers_that_name_none_are_not_guessed(answer):
    result = parse_exclusion(f"<answer>{answer}</answer>", FILMS)
    assert result.index is None
    assert result.status in (NOT_A_CANDIDATE, NO_ANSWER)


def test_html_entities_unicode_forms_and_case():
    texts = ["Tom &amp; Jerry", "Ame\u0301lie", "Stra\u00dfe", "\u6771\u4eac\u7269\u8a9e"]
    assert parse_exclusion("Tom & Jerry", texts).index == 0
    assert parse_exclusion("tom &amp; jerry", texts).index == 0
    assert parse_exclusion("Am\u00e9lie", texts).index == 1
    assert parse_exclusion("STRASSE", texts).index == 2
    assert parse_exclusion("\u6771\u4eac\u7269\u8a9e", texts).index == 3


def test_a_numeric_entity_of_many_digits_is_text():
    assert parse_exclusion("&#" + "9" * 5000 + ";", FILMS) == Answer(None, NOT_A_CANDIDATE)
    long = "&#" + "9" * 5000 + ";"
    assert parse_exclusion(long, ["a", long]) == Answer(1, OK)


def test_texts_that_look_like_labels():
    # "M" as a bare text is the film; as a label it needs thirteen candidates.
    assert parse_exclusion("M", ["A", "B", "M"]).index == 2
    assert parse_exclusion("[M]", ["A", "B", "M"]) == Answer(None, NOT_A_CANDIDATE)
    swapped = ["B", "A"]
    assert parse_exclusion("[A]", swapped).index == 0
    assert parse_exclusion("A", swapped).index == 1
    assert parse_exclusion("[B] A", swapped).index == 1
    assert parse_exclusion("[A] A", swapped) == Answer(None, NOT_A_CANDIDATE)
    assert parse_exclusion("[REC]", ["Heat", "[REC]"]).index == 1


def test_equal_texts_are_told_apart_by_label_only():
    twins = ["Twin", "Other", "Twin"]
    assert parse_exclusion("Twin", twins).index == 0
    assert parse_exclusion("[C]", twins).index == 2
    assert parse_exclusion("[C] Twin", twins) == Answer(2, OK)


def test_texts_that_differ_in_form_only_need_their_exact_form():
    texts = ["Taboo", "TABOO", "1. Taboo"]
    assert [parse_exclusion(t, texts).index for t in texts] == [0, 1, 2]
    assert [parse_exclusion(f" {t} ", texts).index for t in texts] == [0, 1, 2]
    assert parse_exclusion("taboo", texts) == Answer(None, SEVERAL)
    # white space around a candidate's text is not in the answer either
    assert parse_exclusion("1. Foo", [" Foo", "1. Foo "]) == Answer(1, OK)


def test_steps_of_a_list_keep_their_numbers_where_that_tells_them_apart():
    assert parse_exclusion("2. Stir", ["1. Stir", "2. Stir"]).index == 1
    assert parse_exclusion("- 2. Mix", ["1. Stir", "2. Mix"]).index == 1  # as shown by a "- {text}" template
    assert parse_exclusion("Mix", ["1. Stir", "2. Mix"]).index == 1


# ---------------------------------------------------------------- properties


@given(hostile_text, st.lists(hostile_text, max_size=5))
@example("[A]", [])
@example("&#" + "1" * 4301, ["&#" + "1" * 4301 + ";"])
@example("\ud800", ["\udfff", "\ud800"])
def test_any_text_gives_an_answer_or_a_reason_and_names_what_it_says(response, candidates):
    answer = parse_exclusion(response, candidates)
    assert answer.ok == (answer.index is not None)
    assert answer.status in (OK, NO_ANSWER, NOT_A_CANDIDATE, SEVERAL)
    if answer.index is None:
        return
    text, status = answer_text(response)
    assert status == OK and text in response
    named = label(answer.index)
    forms = {f"{o}{named}{c}{e}" for o in ("", "[") for c in ("", "]") for e in ("", ".", ":")}
    is_label = "".join(text.split()) in forms
    is_text = normalise(text) == normalise(candidates[answer.index])
    is_both = text.startswith(f"[{named}]") and normalise(text[len(named) + 2 :]) == normalise(candidates[answer.index])
    assert is_label or is_text or is_both


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30), st.data())
def test_a_bracketed_label_names_its_candidate(candidates, data):
    index = data.draw(st.integers(0, len(candidates) - 1))
    written = f"[{label(index)}]"
    if written not in [c.strip() for c in candidates]:
        assert parse_exclusion(written, candidates) == Answer(index, OK)
        assert parse_exclusion(f"<think>{label(0)}</think>\n<answer> {written} </answer>", candidates).index == index


@given(
    st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=8, unique_by=str.strip), st.data()
)
def test_a_candidates_own_text_names_it(candidates, data):
    index = data.draw(st.integers(0, len(candidates) - 1))
    if not any(mark in candidates[index] for mark in ("<answer>", "</answer>", "<think>", "</think>")):
        assert parse_exclusion(candidates[index], candidates) == Answer(index, OK)
        assert parse_exclusion(f"<answer>{candidates[index]}</answer>", candidates) == Answer(index, OK)


@given(hostile_text)
def test_nothing_but_the_response_can_answer(shown):
    assert parse_exclusion("", [shown, "<answer> </answer>", "[A]", ""]) == Answer(None, NO_ANSWER)


@given(st.text(max_size=30))
def test_normalising_ignores_white_space_around_and_case(text):
    assert normalise(f"  {text}\n") == normalise(text)
    assert normalise(text) == normalise(text).strip()


# ---------------------------------------------------------------- hostile input stays linear

MEGABYTE = 1_000_000
LETTERS = "".join(random.Random(0).choices(string.ascii_letters + " <>[]&;#", k=MEGABYTE))


@pytest.mark.parametrize(
    "response",
    [
        "<answer>" * (MEGABYTE // 8),
        "</answer>" * (MEGABYTE // 9),
        "<answer>" * (MEGABYTE // 16) + "</answer>" * (MEGABYTE // 16),
        "<answer></answer>" * (MEGABYTE // 17),
        "<answer>[A]</answer>" * (MEGABYTE // 20),
        "<think>" * (MEGABYTE // 7),
        "</think>" * (MEGABYTE // 8),
        "<think></think>" * (MEGABYTE // 15),
        "[A]" * (MEGABYTE // 3),
        "[" * MEGABYTE,
        "A" * MEGABYTE,
        " " * MEGABYTE,
        "&" * MEGABYTE,
        "&#" * (MEGABYTE // 2),
        "1. " * (MEGABYTE // 3),
        '"' * MEGABYTE,
        "<" * MEGABYTE,
        "<answer>" + " " * MEGABYTE,
        "<answer>" + " " * MEGABYTE + "</answer>",
        "\u0316\u0301" * (MEGABYTE // 2),
        LETTERS,
        "<answer>" + LETTERS[: MAX_ANSWER_CHARS - 1] + "</answer>",
        "<answer>" + "\u0316\u0301" * (MAX_ANSWER_CHARS // 2) + "</answer>",
        "<answer>[A] " + " " * (MAX_ANSWER_CHARS - 100) + "x</answer>",
    ],
    ids=lambda r: f"{r[:10]!r}-{len(r)}",
)
def test_a_megabyte_of_anything_is_read_at_once(response):
    start = time.perf_counter()
    parse_exclusion(response, FILMS)
    assert time.perf_counter() - start < 5
