"""Reading answers: golden cases, and the properties that hold for any text at all."""

import random
import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.reward_fuzz import named
from reward_fns.answers import (
    MAX_ANSWER_CHARS,
    NO_ANSWER,
    NOT_A_CANDIDATE,
    OK,
    PARTIAL,
    SEVERAL,
    Exclusion,
    Ranking,
    answer_text,
    label,
    label_index,
    normalise,
    parse_exclusion,
    parse_ranking,
    tidy,
)
from reward_fns.exclusion import compute_score
from reward_fns.names import _ALIKE, TAGS, is_label

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
        ("<answer>[B]</answer> or <answer>[A]", (None, SEVERAL)),
        ("<answer>[B]</answer> as asked, in <answer> tags", (None, SEVERAL)),
        ("<answer>[B]</answer></answer>", ("[B]", OK)),
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
    assert parse_exclusion(response, FILMS) == Exclusion(None, NO_ANSWER)


def test_an_answer_as_long_as_the_limit_is_read():
    text = "x" * MAX_ANSWER_CHARS
    assert parse_exclusion(text, ["y", text]) == Exclusion(1, OK)


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
    assert parse_exclusion(answer, FILMS) == Exclusion(index, OK)


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
    written = ["Tom & Jerry", "tom &amp; jerry", "Am\u00e9lie", "STRASSE", "\u6771\u4eac\u7269\u8a9e"]
    assert [parse_exclusion(text, texts).index for text in written] == [0, 0, 1, 2, 3]


def test_a_numeric_entity_of_many_digits_is_text():
    assert parse_exclusion("&#" + "9" * 5000 + ";", FILMS) == Exclusion(None, NOT_A_CANDIDATE)
    long = "&#" + "9" * 5000 + ";"
    assert parse_exclusion(long, ["a", long]) == Exclusion(1, OK)


def test_texts_that_look_like_labels():
    # "M" is the film in a pool of three; where thirteen stand, it could be the label as well, and nobody guesses
    assert parse_exclusion("M", ["A", "B", "M"]).index == 2
    assert parse_exclusion("[M]", ["A", "B", "M"]) == Exclusion(None, NOT_A_CANDIDATE)
    many = ["M", *(f"film {i}" for i in range(12))]
    assert parse_exclusion("M", many) == Exclusion(None, SEVERAL)
    assert parse_exclusion("[A]", many).index == 0
    assert parse_exclusion("[M]", many).index == 12
    assert parse_exclusion("[A] M", many).index == 0
    swapped = ["B", "A"]
    assert parse_exclusion("[A]", swapped).index == 0
    assert parse_exclusion("A", swapped) == Exclusion(None, SEVERAL)
    assert parse_exclusion("[B] A", swapped).index == 1
    assert parse_exclusion("[A] A", swapped) == Exclusion(None, NOT_A_CANDIDATE)
    assert parse_exclusion("A", ["A", "B"]).index == 0  # both readings are one candidate
    assert parse_exclusion("A", ["x", "A", "A"]) == Exclusion(None, SEVERAL)
    assert parse_exclusion("B", ["x", "B", "B"]).index == 1
    assert parse_exclusion("C", ["x", "C", "C"]).index == 2  # the label is one of the two that bear the text
    assert parse_exclusion("[REC]", ["Heat", "[REC]"]).index == 1
    assert parse_exclusion("[B]", ["x", "y", "[B]"]) == Exclusion(None, SEVERAL)
    assert parse_exclusion("[B] y", ["[B] y", "y"]) == Exclusion(None, SEVERAL)
    # a label that normalising makes a text; brackets and colons make a label only
    for written in ("B", "B.", '"B"', "1. B"):
        assert parse_exclusion(written, ["B", "x"]) == Exclusion(None, SEVERAL)
        if written != "B":  # the label exactly, and the film in another case only
            assert parse_exclusion(written, ["b", "x"]) == Exclusion(None, SEVERAL)
    assert parse_exclusion("[A] ...", ["...", "B"]).index == 0  # with its text it is said who is meant
    assert parse_exclusion("B", ["b", "x"]).index == parse_exclusion("A", ["Alien", "Cedar", "a"]).index + 1 == 1
    for written in ("[B]", "(B)", "B:", "[B] x"):
        assert parse_exclusion(written, ["B", "x"]).index == 1
    for written in (
        "&#91;A]",
        "2. &#5; [A]",
        "**[A]**",
        "\uff3bA\uff3d",
    ):  # the label or the text, however it is written
        assert parse_exclusion(written, ["x", "[A]"]) == Exclusion(None, SEVERAL)


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("(B)", 1),
        ("B)", 1),
        ("**[B]**", 1),
        ('"[B]"', 1),
        ("- [B]", 1),
        ("1. [B]", 1),
        ("B. Alien (1979)", 1),
        ("B) alien (1979)", 1),
        ("(B) Alien (1979).", 1),
        ("[B]: Alien (1979)", 1),
        ("B: **Alien (1979)**", 1),
        ("1. [B] Alien (1979)", 1),
        ("[B]\nAlien (1979)", 1),
        ("A. Alien (1979)", None),  # they disagree
        ("B Alien (1979)", None),
        ("[B] [B]", None),
        ("[\u0412]", None),  # a Cyrillic letter that looks like B
        ("\u0410lien (1979)", None),  # and one that looks like A
        ("\uff22", 1),  # a full-width B is a B
        ("&#91;B]", 1),
        ("2. &#5; [B]", 1),
    ],
)
def test_labels_as_they_are_written(answer, index):
    assert parse_exclusion(answer, FILMS).index == index
    assert parse_exclusion(f"<answer>{answer}</answer>", FILMS).index == index


def test_a_number_of_a_list_is_not_the_number_of_a_title():
    texts = ["2. Fast 2 Furious", "300: Rise of an Empire", "1984.", "Se7en"]
    assert [parse_exclusion(t, texts).index for t in texts] == [0, 1, 2, 3]
    assert parse_exclusion("fast 2 furious", texts).index == 0
    assert parse_exclusion("1. 2. Fast 2 Furious", texts).index == 0
    assert parse_exclusion("4. se7en", texts).index == 3
    assert parse_exclusion("1984", texts).index == 2
    assert parse_exclusion("3. Fast 2 Furious", texts) == Exclusion(None, NOT_A_CANDIDATE)
    assert parse_exclusion("299: Rise of an Empire", texts) == Exclusion(None, NOT_A_CANDIDATE)
    both = ["2. fast", "Fast"]
    assert parse_exclusion("2. FAST", both) == Exclusion(None, SEVERAL)


def test_texts_that_only_punctuation_tells_apart():
    texts = ["Help", "Help.", "'Help'", "help!"]
    assert [parse_exclusion(t, texts).index for t in texts] == [0, 1, 2, 3]
    assert parse_exclusion("HELP", texts) == Exclusion(None, SEVERAL)
    assert parse_exclusion("HELP!", texts).index == 3
    assert parse_exclusion("...", ["...", "a"]).index == 0
    assert parse_exclusion('"', ["...", "a"]) == Exclusion(None, NOT_A_CANDIDATE)


def test_what_looks_alike_is_read_alike():
    texts = ["Schindler\u2019s List", "Spider\u2013Man", "na\u00efve\u200b caf\u00e9", "\u201cQuoted\u201d word"]
    written = ["Schindler's List", "spider-man", "nai\u0308ve cafe\u0301", '"Quoted" word']
    assert [parse_exclusion(text, texts).index for text in written] == [0, 1, 2, 3]
    alike = ["Schindler\u2019s List", "Schindler's List"]
    assert [parse_exclusion(t, alike).index for t in alike] == [0, 1]
    assert parse_exclusion("schindler's list", alike) == Exclusion(None, SEVERAL)


def test_what_cannot_be_seen_is_not_there():
    unseen = (0xAD, 0x34F, 0x61C, 0x180E, 0x200B, 0x202E, 0x2066, 0x206A, 0x206F, 0xFE0E, 0xFE0F, 0xFEFF)
    for mark in map(chr, unseen):
        assert (
            parse_exclusion(f"{mark}[B]{mark}", FILMS).index == parse_exclusion(f"Al{mark}ien (1979)", FILMS).index == 1
        )


@pytest.mark.parametrize("mark", sorted(_ALIKE), ids="U+{:04X}".format)
def test_every_look_alike_is_read_through_the_reward(mark):
    """NFKC makes a space and a mark of U+00B4 before anybody can see it."""
    truth = {"candidates": [f"Ocean{_ALIKE[mark] or ''}s Eleven", "Heat"], "target": 1}
    written = f"<answer>Ocean{chr(mark)}s Eleven</answer>"
    for answer, texts in (
        (written, truth["candidates"]),
        (written.replace(chr(mark), _ALIKE[mark] or ""), [written[8:-9], "Heat"]),
    ):
        parts = compute_score("rec-movie", answer, {**truth, "candidates": texts})
        assert (parts["score"], parts["not_a_candidate"]) == (1.0, 0.0)


def test_what_compatibility_forms_make_of_a_text_is_read_alike_too():
    assert parse_exclusion("\u0149 Sync", ["Heat", "'N Sync"]).index == 1
    assert parse_exclusion("Cafe\u200d\u0301", ["Heat", "Caf\u00e9"]).index == 1  # the invisible one stood between


@pytest.mark.parametrize("numeral", [chr(c) for c in range(0x2160, 0x2170)])
@pytest.mark.parametrize("written", ["{}", "[{}]", "({}).", "- {}", "{}. film", "[{}] film", "**{}**"])
def test_a_numeral_means_a_number_and_is_no_label(numeral, written):
    texts = ["film"] * 1000  # enough for XII to be a label
    answer = written.format(numeral)
    for form in (answer, answer.replace(numeral, f"&#{ord(numeral)};")):
        assert parse_exclusion(f"<answer>{form}</answer>", texts) == Exclusion(None, NOT_A_CANDIDATE)
        assert not is_label(form)
    assert parse_ranking(f"<answer>{numeral} > {numeral}</answer>", texts) == Ranking((), NOT_A_CANDIDATE)


def test_numerals_stay_part_of_texts_and_letters_in_other_forms_stay_labels():
    texts = ["Rocky II", "Henry \u2164", *(f"film {i}" for i in range(7)), "V"]
    for answer in ("Rocky \u2161", "[A] rocky \u2161", "A. Rocky \u2161", "1. Rocky &#8545;"):
        assert parse_exclusion(answer, texts).index == 0, answer
    assert parse_exclusion("henry v", texts).index == 1
    assert parse_exclusion("[B] Henry \u2164", texts).index == 1
    assert parse_exclusion("\u2164", texts).index == 9  # the text
    assert parse_exclusion("\u2160", [*texts[:8], "\u2160"]).index == 8
    for letter in ("\uff29", "\u24be", "[\uff29]", "(\u24be)", "\u24be. film 6"):
        assert parse_exclusion(letter, texts).index == 8, letter
        assert is_label(letter) == ("film" not in letter)


@pytest.mark.parametrize(
    ("response", "texts", "expected"),
    [
        ("<answer>The <answer> tag</answer>", ["x", "The <answer> tag"], Exclusion(1, OK)),
        ("<answer>Use </answer> to close</answer>", ["Use", "Use </answer> to close"], Exclusion(None, SEVERAL)),
        ("<answer>Use </answer> to close</answer>", ["x", "Use </answer> to close"], Exclusion(1, OK)),
        ("<think>hm</think><answer> The </think> tag </answer>", ["x", "The </think> tag"], Exclusion(1, OK)),
        ("The </think> A", ["x", "The </think> A"], Exclusion(None, SEVERAL)),  # or a thought, and then the label
        ("The </think> tag", ["tag", "The </think> tag"], Exclusion(None, SEVERAL)),
        ("<answer>A</answer>", ["x", "<answer>A</answer>"], Exclusion(None, SEVERAL)),
        ("<answer>A</answer>", ["<answer>A</answer>", "x"], Exclusion(0, OK)),
        ("<answer>[B]</answer>", ["<answer>A</answer>", "x"], Exclusion(1, OK)),
        ("<think>is it <answer>A</answer>?</think>[B]", ["<answer>A</answer>", "x"], Exclusion(1, OK)),
        ("<think>", ["<think>", "x"], Exclusion(0, OK)),
        ("well, <answer>", ["<answer>", "x"], Exclusion(None, NO_ANSWER)),
        ("<answer>y <think></answer>", ["y <think>", "x"], Exclusion(0, OK)),
        ("<answer>y <think>", ["y <think>", "x"], Exclusion(None, NO_ANSWER)),
    ],
)
def test_candidates_that_hold_tags(response, texts, expected):
    assert parse_exclusion(response, texts) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("[B]", True),
        (" [B]\n", True),
        ("<answer>[B]</answer>", True),
        ("<think>a < b</think>\n<answer>\n[B]\n</answer>\n", True),
        ("so it is</think><answer>[B]</answer>", True),
        ("\n<think>x</think>[B]", True),
        ("Well. <answer>[B]</answer>", False),
        ("<answer>[B]</answer> Done.", False),
        ("<answer>[B]</answer><answer>[B]</answer>", False),
        ("Well <think>x</think>[B]", False),
        ("<think>x <think>y</think>[B]", False),
        ("<think>x</think>y</think>[B]", False),
    ],
)
def test_tidy_responses(response, expected):
    assert tidy(response) is expected
    assert parse_exclusion(response, FILMS) == Exclusion(1, OK) or "Well <think>" in response
    assert parse_exclusion(response, FILMS).tidy is expected


def test_an_answer_far_longer_than_any_candidate_names_none():
    assert parse_exclusion("alien (1979)" + " " * 10_000, FILMS).index == 1  # white space around is nothing
    assert parse_exclusion("alien" + " " * 10_000 + "(1979)", FILMS) == Exclusion(None, NOT_A_CANDIDATE)


def test_equal_texts_are_told_apart_by_label_only():
    twins = ["Twin", "Other", "Twin"]
    assert parse_exclusion("Twin", twins).index == 0
    assert parse_exclusion("[C]", twins).index == 2
    assert parse_exclusion("[C] Twin", twins) == Exclusion(2, OK)


def test_texts_that_differ_in_form_only_need_their_exact_form():
    texts = ["Taboo", "TABOO", "1. Taboo"]
    assert [parse_exclusion(t, texts).index for t in texts] == [0, 1, 2]
    assert [parse_exclusion(f" {t} ", texts).index for t in texts] == [0, 1, 2]
    assert parse_exclusion("taboo", texts) == Exclusion(None, SEVERAL)
    # white space around a candidate's text is not in the answer either
    assert parse_exclusion("1. Foo", [" Foo", "1. Foo "]) == Exclusion(1, OK)


def test_steps_of_a_list_keep_their_numbers_where_that_tells_them_apart():
    assert parse_exclusion("2. Stir", ["1. Stir", "2. Stir"]).index == 1
    assert parse_exclusion("- 2. Mix", ["1. Stir", "2. Mix"]).index == 1  # as shown by a "- {text}" template
    assert parse_exclusion("Mix", ["1. Stir", "2. Mix"]).index == 1


# ---------------------------------------------------------------- whole rankings

TITLES = ["Good, the Bad and the Ugly, The (1966)", "Heat (1995)", "Alien > Aliens", "Up"]


@pytest.mark.parametrize(
    ("answer", "order"),
    [
        ("[B] > [A] > [D] > [C]", (1, 0, 3, 2)),
        ("[B]>[A]>[D]>[C]", (1, 0, 3, 2)),
        ("B > A > D > C", (1, 0, 3, 2)),
        ("[B], [A], [D], [C]", (1, 0, 3, 2)),
        ("B, A, D, C", (1, 0, 3, 2)),
        ("[B, A, D, C]", (1, 0, 3, 2)),
        ("[B]\n[A]\n[D]\n[C]", (1, 0, 3, 2)),
        ("[B] >\n[A] >\n[D] >\n[C]", (1, 0, 3, 2)),
        ("[B],\n[A],\n[D],\n[C]\n", (1, 0, 3, 2)),
        ("1. [B]\n2. [A]\n\n3. [D]\n4. [C]", (1, 0, 3, 2)),
        ("- B\n- A\n- D\n- C", (1, 0, 3, 2)),
        ("1. B, 2. A, 3. D, 4. C", (1, 0, 3, 2)),
        ("[B] -> [A] => [D] --> [C]", (1, 0, 3, 2)),
        ("[B] \u2192 [A] \u21d2 [D] \uff1e [C]", (1, 0, 3, 2)),
        ("[B] &gt; [A] &gt; [D] -&gt; [C]", (1, 0, 3, 2)),
        ("B\u3001A\uff0cD, C", (1, 0, 3, 2)),
        (" -> ".join(TITLES), (0, 1, 2, 3)),
        ("\n".join(TITLES[::-1]), (3, 2, 1, 0)),
        ("\n".join(f"{i}. {t.lower()}" for i, t in enumerate(TITLES, 1)), (0, 1, 2, 3)),
        ("[D] Up\n[C] Alien > Aliens\n[A]\nheat (1995)", (3, 2, 0, 1)),
        (", ".join(TITLES), (0, 1, 2, 3)),
        (" > ".join(TITLES), (0, 1, 2, 3)),
        ('"Up", "Good, the Bad and the Ugly, The (1966)", Heat (1995), alien > aliens', (3, 0, 1, 2)),
        ("**Up**\n**Heat (1995)**\n**[A]**\n**C. Alien > Aliens**", (3, 1, 0, 2)),
    ],
)
def test_whole_rankings(answer, order):
    assert parse_ranking(answer, TITLES) == Ranking(order, OK)
    assert parse_ranking(f"<think>[A]? [B]?</think> So: <answer>\n{answer}\n</answer>", TITLES) == Ranking(order, OK)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[B] > [A]", Ranking((1, 0), PARTIAL)),
        ("[B] > [A] > [B] > [D] > [C]", Ranking((1, 0, 3, 2), PARTIAL, repeated=1)),
        ("[B] > [A] > [Z]", Ranking((1, 0), PARTIAL, unknown=1)),
        ("B, A, Z", Ranking((1, 0), PARTIAL, unknown=1)),
        ("Up\nDown\nHeat (1995)\nup", Ranking((3, 1), PARTIAL, repeated=1, unknown=1)),
        ("Best first:\n[A]\n[B]", Ranking((0, 1), PARTIAL, unknown=1)),
        ("Up", Ranking((3,), PARTIAL)),
        ("Up, Down", Ranking((), NOT_A_CANDIDATE)),  # it may be one title
        ("The best is [A], the worst [B]", Ranking((), NOT_A_CANDIDATE)),
        ("A B C D", Ranking((), NOT_A_CANDIDATE)),
        ("[A] > [B], [C]", Ranking((0,), PARTIAL, unknown=1)),
        ("[A] > " * 100, Ranking((), NOT_A_CANDIDATE)),
        ("[Z] > [Y]", Ranking((), NOT_A_CANDIDATE)),
        (">", Ranking((), NOT_A_CANDIDATE)),
        ("", Ranking((), NO_ANSWER)),
    ],
)
def test_rankings_with_faults_are_kept_as_far_as_they_go(answer, expected):
    assert parse_ranking(f"<answer>{answer}</answer>", TITLES) == expected


def test_what_names_nobody_keeps_its_rank():
    read = parse_ranking("<answer>[B] (good) > [C] > [C] > so so > [A]</answer>", TITLES)
    assert (read.order, read.ranks, read.repeated, read.unknown) == ((2, 0), (None, 2, None, 0), 1, 2)


def test_without_tags_a_ranking_is_nothing_but_names():
    assert parse_ranking("Best first:\n[A]\n[B]", TITLES) == Ranking((), NOT_A_CANDIDATE)
    shown = "Rank these:\n" + "\n".join(f"[{label(i)}] {t}" for i, t in enumerate(TITLES)) + "\nBest first:"
    assert parse_ranking(shown, TITLES) == Ranking((), NOT_A_CANDIDATE)
    assert parse_ranking("[A]\n[B]", TITLES) == Ranking((0, 1), PARTIAL)
    assert parse_ranking("[A] > [Z] > [B]", TITLES) == Ranking((0, 1), PARTIAL, unknown=1)  # nothing but names
    assert parse_ranking("Up\nDown", TITLES) == Ranking((), NOT_A_CANDIDATE)
    assert parse_ranking("<answer>[A]</answer><answer>[B]</answer>", TITLES) == Ranking((), SEVERAL)


def test_a_ranking_that_can_be_cut_in_two_ways_is_not_guessed():
    assert parse_ranking("A, B", ["A, B", "x", "B"]) == Ranking((), SEVERAL)
    assert parse_ranking("x > y", ["x > y", "x", "y"]) == Ranking((), SEVERAL)
    assert parse_ranking("x > y\nx\ny", ["x > y", "x", "y"]) == Ranking((0, 1, 2), OK)
    assert parse_ranking("one, two, three", ["one, two", "two, three", "one", "three"]) == Ranking((), SEVERAL)
    assert parse_ranking("one, two, three", ["one, two", "x", "three"]) == Ranking((0, 2), PARTIAL)


def test_equal_texts_in_a_ranking():
    twins = ["Twin", "Other", "Twin"]
    assert parse_ranking("Twin\nOther\nTwin", twins) == Ranking((0, 1, 2), OK)
    assert parse_ranking("[C]\nOther\nTwin", twins) == Ranking((2, 1, 0), OK)
    assert parse_ranking("Twin\nTwin\nTwin", twins) == Ranking((0, 2), PARTIAL, repeated=1)
    assert parse_ranking("[C]\n[C]\n[B]", twins) == Ranking((2, 1), PARTIAL, repeated=1)


@given(st.permutations(range(30)), st.sampled_from([" > ", ">", ", ", "\n"]), st.booleans())
def test_every_order_of_labels_is_read_back(order, between, brackets):
    written = between.join(f"[{label(i)}]" if brackets else label(i) for i in order)
    assert parse_ranking(written, [f"text {i}" for i in range(30)]) == Ranking(tuple(order), OK)


@given(st.permutations(range(6)), st.sampled_from([" > ", ", ", "\n"]), st.data())
def test_orders_of_texts_are_read_back_or_refused_never_changed(order, between, data):
    words = st.text("ab, >", min_size=1, max_size=6).map(str.strip).filter(lambda t: t.strip(", >"))
    texts = data.draw(st.lists(words, min_size=6, max_size=6, unique=True))
    ranking = parse_ranking(between.join(texts[i] for i in order), texts)
    assert not ranking.ok or ranking.order == tuple(order)


# ---------------------------------------------------------------- properties


@given(hostile_text, st.lists(hostile_text, max_size=5))
@example("[A]", [])
@example("&#" + "1" * 4301, ["&#" + "1" * 4301 + ";"])
@example("\ud800", ["\udfff", "\ud800"])
@example("\u0301\u0316" * 50, ["\u0301\u0316" * 50])
def test_any_text_gives_an_answer_or_a_reason_and_names_what_it_says(response, candidates):
    answer = parse_exclusion(response, candidates)
    assert answer.ok == (answer.index is not None)
    assert answer.status in (OK, NO_ANSWER, NOT_A_CANDIDATE, SEVERAL)
    assert answer.ok or not answer.tidy
    if answer.index is not None:
        assert answer.index in named(response, candidates)


@given(hostile_text, st.lists(hostile_text, max_size=5))
@example("[A] > [B]", ["x", "y"])
@example("B, A", ["x", "A, B"])
def test_any_text_gives_an_order_or_a_reason(response, candidates):
    ranking = parse_ranking(response, candidates)
    assert len(set(ranking.order)) == len(ranking.order)
    assert all(0 <= i < len(candidates) for i in ranking.order)
    assert bool(ranking.order) == (ranking.status in (OK, PARTIAL))
    if ranking.ok:
        assert sorted(ranking.order) == list(range(len(candidates)))
        assert ranking.repeated == ranking.unknown == 0


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30), st.data())
def test_a_bracketed_label_names_its_candidate(candidates, data):
    index = data.draw(st.integers(0, len(candidates) - 1))
    written = f"[{label(index)}]"
    if not any(normalise(written) in normalise(c) for c in candidates):
        assert parse_exclusion(written, candidates) == Exclusion(index, OK)
        assert parse_exclusion(f"<think>{label(0)}</think>\n<answer> {written} </answer>", candidates).index == index


@given(
    st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=8, unique_by=str.strip), st.data()
)
def test_a_candidates_own_text_names_it(candidates, data):
    index = data.draw(st.integers(0, len(candidates) - 1))
    if not any(mark in candidates[index] for mark in TAGS) and not is_label(candidates[index]):
        assert parse_exclusion(candidates[index], candidates) == Exclusion(index, OK)
        assert parse_exclusion(f"<answer>{candidates[index]}</answer>", candidates) == Exclusion(index, OK)


@given(hostile_text)
def test_nothing_but_the_response_can_answer(shown):
    assert parse_exclusion("", [shown, "<answer> </answer>", "[A]", ""]) == Exclusion(None, NO_ANSWER)


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
        "<answer>" + "\u0316\u200b\u0301" * (MAX_ANSWER_CHARS // 3) + "</answer>",  # a run once those between are gone
        "<answer>" + "\u2160\u00b4" * (MAX_ANSWER_CHARS // 2) + "</answer>",
        "\u2160" * MEGABYTE,
        "<answer>[A] " + " " * (MAX_ANSWER_CHARS - 100) + "x</answer>",
    ],
    ids=lambda r: f"{r[:10]!r}-{len(r)}",
)
def test_a_megabyte_of_anything_is_read_at_once(response):
    # not a timing test: quadratic work would take minutes
    start = time.process_time()
    parse_exclusion(response, FILMS)
    parse_ranking(response, FILMS)
    parse_exclusion(response, ["x" * MAX_ANSWER_CHARS, *FILMS])
    assert time.process_time() - start < 5
