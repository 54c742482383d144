"""Prompt templates: what they show, their hash, and errors that name the file and the field."""

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.ranking import SCENARIOS, Candidate, Elimination, RankingTask
from iranker_verl.ranking.templates import available, check_hash, load, parse
from reward_fns.answers import label, parse_exclusion

BUNDLED = [load(name) for name in available()]
CONTENT = {
    "id": "mine",
    "answer": "label",
    "candidate": "[{label}] {text}",
    "system": None,
    "user": {s: "C: {context}\n{candidates}\nworst of {n}:" for s in SCENARIOS},
}


def source(**changes):
    return yaml.safe_dump(CONTENT | changes, sort_keys=False)


def state(texts=("alpha", "beta", "gamma"), context="the context", scenario="passage"):
    candidates = tuple(Candidate(f"id{i}", t) for i, t in enumerate(texts))
    relevance = tuple(float(i == 0) for i in range(len(texts)))
    return Elimination(RankingTask("t", scenario, "passage-5", context, candidates, relevance))


def test_a_golden_prompt():
    template = parse(source(system="Be brief. {n}"), "mine")
    episode = state()
    assert template.messages(episode) == [
        {"role": "system", "content": "Be brief. {n}"},
        {"role": "user", "content": "C: the context\n[A] alpha\n[B] beta\n[C] gamma\nworst of 3:"},
    ]
    episode.step("[A]")
    assert template.messages(episode)[1]["content"] == "C: the context\n[A] beta\n[B] gamma\nworst of 2:"


def test_the_tiny_template_is_the_one_that_was_measured():
    assert load("label").messages(state(scenario="recommendation")) == [
        {
            "role": "user",
            "content": "History: the context\nCandidates:\n[A] alpha\n[B] beta\n[C] gamma\nExclude the worst:",
        }
    ]


def test_bundled_templates():
    assert set(available()) >= {"label", "think-label", "think-text"}
    for name in available():
        assert load(name).id == name
    assert len({t.hash for t in BUNDLED}) == len(BUNDLED)


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_bundled_template_shows_the_context_and_then_every_candidate(template, scenario):
    texts = [f"candidate number {i}" for i in range(28)]
    episode = state(texts, "THE CONTEXT", scenario)
    messages = template.messages(episode)
    assert [m["role"] for m in messages] == (["system", "user"] if template.system else ["user"])
    text = messages[-1]["content"]
    places = [
        text.index("THE CONTEXT"),
        *(text.index(f" {t}\n") if f" {t}\n" in text else text.index(t) for t in texts),
    ]
    assert places == sorted(places)
    assert "{" not in text
    if template.answer == "label":
        assert all(f"[{label(i)}] {t}" in text for i, t in enumerate(texts))
    # the steps of an episode share all that is before the candidates (prefix caching), but for their number
    episode.step("candidate number 5")
    later = template.messages(episode)[-1]["content"]
    assert later.startswith(text[: text.index("THE CONTEXT") + len("THE CONTEXT")])


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
def test_braces_in_data_are_text(template):
    texts = ["{context}", "{candidates} {label} {text} {n}", "{0} {} }{ %s \\1 \\g<0>"]
    text = template.messages(state(texts, "{candidates} {text} {n} \\1"))[-1]["content"]
    assert "{candidates} {text} {n} \\1" in text
    assert all(t in text for t in texts)
    assert text.count("{candidates} {label} {text} {n}") == 1


plain = st.text(min_size=1, max_size=30).filter(str.strip)


@given(st.lists(plain, min_size=2, max_size=28), plain, st.sampled_from(SCENARIOS))
def test_what_is_shown_is_what_was_given(texts, context, scenario):
    for template in BUNDLED:
        text = template.messages(state(texts, context, scenario))[-1]["content"]
        head, mark, _ = text.partition("\n".join(_lines(template, texts)))
        assert mark and context in head


def _lines(template, texts):
    before, after = template.candidate.split("{text}")
    return [before.replace("{label}", label(i)) + t + after for i, t in enumerate(texts)]


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
@given(texts=st.lists(plain, min_size=2, max_size=28, unique_by=str.strip), data=st.data())
@settings(max_examples=60)
def test_the_answer_taught_is_the_answer_read(template, texts, data):
    episode = state(texts)
    place = data.draw(st.integers(0, len(texts) - 1))
    answer = template.answer_for(episode, place)
    # a text that is another candidate's label, or a tag of the answer format, cannot be told from it
    assume(template.answer == "label" or not any(t in answer for t in ("<think>", "</think>", "<answer>", "</answer>")))
    assume(template.answer == "text" or answer not in [t.strip() for t in texts])
    assert parse_exclusion(answer, texts).index == place
    assert parse_exclusion(f"<think>hm</think> <answer>{answer}</answer>", texts).index == place
    assert episode.step(answer).excluded == f"id{place}"


# ---------------------------------------------------------------- the hash


def test_the_hash_ignores_comments_order_and_spelling():
    reference = parse(source(), "a").hash
    shuffled = yaml.safe_dump({k: CONTENT[k] for k in reversed(CONTENT)}, sort_keys=False)
    users = CONTENT | {"user": {s: CONTENT["user"][s] for s in reversed(SCENARIOS)}}
    assert parse(f"# a comment\n{source()}\n# another\n", "b").hash == reference
    assert parse(shuffled, "c").hash == reference
    assert parse(yaml.safe_dump(users, sort_keys=False), "d").hash == reference
    assert parse(yaml.safe_dump(CONTENT, default_style='"'), "e").hash == reference


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"answer": "text"},
        {"candidate": "[{label}]  {text}"},
        {"system": ""},
        {"system": "Be brief."},
        *({"user": CONTENT["user"] | {s: "D: {context}\n{candidates}"}} for s in SCENARIOS),
    ],
)
def test_the_hash_covers_all_content(changes):
    assert parse(source(**changes), "x").hash != parse(source(), "x").hash


def test_hashes_stay_what_data_and_checkpoints_were_made_with():
    # A change here makes every prepared file and every trained model unusable: bump it knowingly.
    assert {t.id: len(t.hash) for t in BUNDLED} == {t.id: 16 for t in BUNDLED}
    assert parse(source(), "x").hash == "5c7ad799352c3adb"


def test_another_template_is_refused_with_both_hashes():
    template = load("label")
    check_hash(template, template.id, template.hash, "file")
    for id, hash in (("label", "0123456789abcdef"), ("think-text", template.hash), (None, None)):
        with pytest.raises(UserError) as error:
            check_hash(template, id, hash, "train.parquet row 0")
        text = str(error.value)
        assert "train.parquet row 0" in text and str(hash) in text and template.hash in text and "\n" not in text


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no mapping"]),
        ("just text", ["no mapping"]),
        ("- a\n- b", ["no mapping"]),
        ("a: [", ["not valid YAML"]),
        ("a: b: c", ["not valid YAML"]),
        (source(extra=1), ["extra", "unknown"]),
        (yaml.safe_dump({k: v for k, v in CONTENT.items() if k != "candidate"}), ["candidate", "missing"]),
        (source(id=None), ["id has to be a text", "None"]),
        (source(id=3), ["id has to be a text", "3"]),
        (source(answer="number"), ["answer", "number"]),
        (source(answer=["label"]), ["answer"]),
        (source(candidate=None), ["candidate has to be a text"]),
        (source(candidate="{label}"), ["candidate", "{text}"]),
        (source(candidate="{text}"), ["candidate", "{label}"]),
        (source(system=False), ["system", "False"]),
        (source(system=["x"]), ["system"]),
        (source(user="{context} {candidates}"), ["user"]),
        (source(user=None), ["user"]),
        (source(user={}), ["user", "recommendation"]),
        (source(user=CONTENT["user"] | {"musik": "{context} {candidates}"}), ["user"]),
        (source(user=CONTENT["user"] | {"passage": 3}), ["user.passage", "{context}"]),
        (source(user=CONTENT["user"] | {"passage": None}), ["user.passage"]),
        (source(user=CONTENT["user"] | {"passage": "{candidates} {context}"}), ["user.passage", "{context}"]),
        (source(user=CONTENT["user"] | {"routing": "{context}"}), ["user.routing", "{candidates}"]),
        (source(user=CONTENT["user"] | {"routing": "{candidates}"}), ["user.routing", "{context}"]),
    ],
)
def test_a_wrong_template_is_one_line_with_file_and_field(text, words):
    with pytest.raises(UserError) as error:
        parse(text, "mine.yaml")
    message = str(error.value)
    assert "mine.yaml" in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_template_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(source(), encoding="utf-8")
    assert load(str(path)) == parse(source(), "x")


def test_templates_that_are_not_there(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"id: caf\xe9")
    for name, words in (
        ("lable", ["unknown template 'lable'", "think-label"]),
        ("", ["unknown template ''"]),
        (None, ["unknown template 'None'"]),
        ("../templates/label", ["unknown template"]),
        (str(tmp_path / "none.yaml"), ["no such template file"]),
        (str(tmp_path / "folder.yaml"), ["no such template file"]),
        (str(tmp_path / "latin.yaml"), ["latin.yaml", "UTF-8"]),
    ):
        with pytest.raises(UserError) as error:
            load(name)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
