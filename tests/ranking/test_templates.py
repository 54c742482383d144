"""Prompt templates: what they show, their hash, and errors that name the file and the field."""

import random
import re

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS, SCENARIOS, AllPairs, Candidate, Elimination, Pairwise, RankingTask, Setwise
from iranker_verl.ranking.direct import DirectRanking
from iranker_verl.ranking.templates import available, check_hash, load, parse, pieces
from reward_fns.answers import label, parse_exclusion

BUNDLED = [load(name) for name in available()]
EXCLUSION = [t for t in BUNDLED if t.kind == "exclusion"]
DIRECT = [t for t in BUNDLED if t.kind == "direct"]
SORTING = [t for t in BUNDLED if t not in EXCLUSION + DIRECT]
MACHINES = {
    "exclusion": Elimination,
    "direct": DirectRanking,
    "setwise": Setwise,
    "pairwise": Pairwise,
    "allpairs": AllPairs,
}
CONTENT = {
    "id": "mine",
    "answer": "label",
    "candidate": "[{label}] {text}",
    "system": None,
    "user": {s: "C: {context}\n{candidates}\nworst of {n}:" for s in SCENARIOS},
}


def source(**changes):
    return yaml.safe_dump(CONTENT | changes, sort_keys=False)


def make(texts=("alpha", "beta", "gamma"), context="the context", dataset="passage-5", scenario=None):
    candidates = tuple(Candidate(f"id{i}", t) for i, t in enumerate(texts))
    relevance = tuple(float(i == 0) for i in range(len(texts)))
    return RankingTask("t", scenario or DATASETS[dataset], dataset, context, candidates, relevance)


def state(*arguments, **named):
    return Elimination(make(*arguments, **named))


def shown(template, *arguments, **named):
    return question(template, template.start(make(*arguments, **named)))


def question(template, state):
    """The user's message."""
    return next(m["content"] for m in template.messages(state) if m["role"] == "user")


# ---------------------------------------------------------------- what is shown


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("",)),
        ("no field { } {two words} {}", ("no field { } {two words} {}",)),
        ("{context}", ("", "context", "")),
        ("[{label}] {text}", ("[", "label", "] ", "text", "")),
        ("a{n}{n}b", ("a", "n", "", "n", "b")),
        ("{{n}}", ("{", "n", "}")),
    ],
)
def test_pieces(text, parts):
    assert pieces(text) == parts


@given(st.lists(st.sampled_from(["{context}", "{n}", "{", "}", "x", "{ n }", "\n", "}{"]), max_size=12).map("".join))
def test_pieces_alternate_and_lose_nothing(text):
    parts = pieces(text)
    assert len(parts) % 2 == 1
    assert "".join("{" + p + "}" if i % 2 else p for i, p in enumerate(parts)) == text
    assert all("{context}" not in p and "{n}" not in p for p in parts[::2])
    assert all(p.isalpha() for p in parts[1::2])


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
    assert load("label").messages(state(dataset="rec-music")) == [
        {
            "role": "user",
            "content": "History: the context\nCandidates:\n[A] alpha\n[B] beta\n[C] gamma\nExclude the worst:",
        }
    ]
    assert load("label").hash == "cf882d79ec82b4ca"  # as in docs/results.md


def test_bundled_templates():
    assert {t.id for t in EXCLUSION} == {"label", "published", "think-label", "think-text"}
    assert {t.id for t in DIRECT} == {"direct-label", "direct-think-label", "direct-think-text"}
    sorting = {f"{kind}-{form}" for kind in ("setwise", "pairwise", "allpairs") for form in ("label", "think-label")}
    assert {t.id for t in SORTING} == sorting and all(t.id.startswith(t.kind) for t in SORTING)
    for name in available():
        assert load(name).id == name
        assert load(name).answer == ("text" if name == "published" else name.split("-")[-1])
    assert len({t.hash for t in BUNDLED}) == len(BUNDLED)


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
def test_how_an_answer_is_to_look_is_in_the_prompt(template):
    text = "\n".join(m["content"] for m in template.messages(template.start(make())))
    reasons = "think" in template.id or template.id == "published"
    assert reasons == all(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    if template.kind == "direct":
        example = template.answer_for(template.start(make("WXYZ")), 0, 1, 2)
        shape = "[X] > [Y] > [Z]" if template.answer == "label" else "one a line"
        assert shape in text and (template.answer == "text" or example == "[A] > [B] > [C]")


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_bundled_template_shows_the_context_and_then_every_candidate(template, dataset):
    count = {"setwise": 4, "pairwise": 2, "allpairs": 2}.get(template.kind, 28)
    texts = [f"candidate number {i}" for i in range(count)]
    messages = template.messages(template.start(make(texts, "THE CONTEXT", dataset)))
    turns = {"system": template.system, "user": True, "assistant": template.begin}
    assert [m["role"] for m in messages] == [role for role, said in turns.items() if said]
    text = next(m["content"] for m in messages if m["role"] == "user")
    places = [
        text.index("THE CONTEXT"),
        *(text.index(f" {t}\n") if f" {t}\n" in text else text.index(t) for t in texts),
    ]
    assert places == sorted(places)
    assert "{" not in text
    if template.answer == "label":
        assert all(f"[{label(i)}] {t}" in text for i, t in enumerate(texts))


@pytest.mark.parametrize("template", EXCLUSION, ids=lambda t: t.id)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("place", [0, 7, 19])
def test_a_step_shares_all_before_the_candidate_that_has_left(template, dataset, place):
    # What a prefix cache saves: nothing before the candidates may change from step to step, their number neither.
    texts = [f"candidate number {i}" for i in range(20)]
    episode = state(texts, "THE CONTEXT", dataset)
    first = question(template, episode)
    episode.step(template.answer_for(episode, place))
    before = texts[place - 1] if place else "THE CONTEXT"
    assert question(template, episode).startswith(first[: first.index(before) + len(before)])


@pytest.mark.parametrize("template", [t for t in BUNDLED if "think" in t.id], ids=lambda t: t.id)
def test_every_dataset_has_its_wording(template):
    words = {
        "rec-movie": ["movie", "watch"],
        "rec-music": ["album", "buy"],
        "rec-game": ["video game", "buy"],
        "router-performance": ["llms", "whatever it costs"],
        "router-cost": ["llms", "low cost counts most"],
        "router-balance": ["llms", "count alike"],
    } | {name: ["passages", "query"] for name in ("passage-5", "passage-7", "passage-9")}
    texts = {name: shown(template, dataset=name) for name in DATASETS}
    for name, text in texts.items():
        assert all(word in text.lower() for word in words[name]), text
    assert len(set(texts.values())) == 7  # the three passage sets share theirs


def test_a_datasets_text_goes_before_its_scenarios():
    user = CONTENT["user"] | {"rec-game": "G {context} {candidates}"}
    template = parse(source(user=user), "mine")
    assert shown(template, ["x", "y"], "c", "rec-game") == "G c [A] x\n[B] y"
    assert shown(template, ["x", "y"], "c", "rec-movie") == "C: c\n[A] x\n[B] y\nworst of 2:"
    assert template.user_pieces("rec-game", "recommendation") == ("G ", "context", " ", "candidates", "")
    # a data set of one's own takes its scenario's, whatever its name
    user = CONTENT["user"] | {"passage": "P {context} {candidates}"}
    template = parse(source(user=user), "mine")
    for name in ("my-films", "passage", ""):
        assert shown(template, ["x", "y"], "c", name, "recommendation").startswith("C: c")


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
def test_braces_in_data_are_text(template):
    texts = ["{context}", "{candidates} {label} {text} {n}", "{0} {} }{ %s \\1 \\g<0>"]
    text = template.question("passage-5", "passage", "{candidates} {text} {n} \\1", texts)
    assert "{candidates} {text} {n} \\1" in text
    assert all(t in text for t in texts)
    assert text.count("{candidates} {label} {text} {n}") == 1


plain = st.text(min_size=1, max_size=30).filter(str.strip)


@given(st.lists(plain, min_size=2, max_size=28), plain, st.sampled_from(list(DATASETS)))
def test_what_is_shown_is_what_was_given(texts, context, dataset):
    # str.format is another reader of the same texts, and reads no value twice either
    for template in BUNDLED:
        user = template.user.get(dataset, template.user[DATASETS[dataset]])
        lines = [template.candidate.format(label=label(i), text=text) for i, text in enumerate(texts)]
        wanted = user.format(context=context, candidates="\n".join(lines), n=len(texts))
        assert template.question(dataset, DATASETS[dataset], context, texts) == wanted
        if template not in SORTING:
            assert shown(template, texts, context, dataset) == wanted


@pytest.mark.parametrize("template", EXCLUSION, ids=lambda t: t.id)
@given(texts=st.lists(plain, min_size=2, max_size=28, unique_by=str.strip), data=st.data())
@settings(max_examples=60)
def test_the_answer_taught_is_the_answer_read(template, texts, data):
    episode = state(texts)
    place = data.draw(st.integers(0, len(texts) - 1))
    answer = template.answer_for(episode, place)
    # a text that reads like a label, or holds a tag of the answer format, cannot be told from it
    if template.answer == "label":
        assume(answer not in [t.strip() for t in texts])
    else:
        assume(not re.match(r"\W*[A-Z]{1,3}\b", answer))
        assume(not any(t in answer for t in ("<think>", "</think>", "<answer>", "</answer>")))
    assert parse_exclusion(answer, texts).index == place
    assert parse_exclusion(f"<think>hm</think> <answer>{answer}</answer>", texts).index == place
    assert episode.step(answer).excluded == f"id{place}"


@pytest.mark.parametrize("template", DIRECT, ids=lambda t: t.id)
@given(order=st.integers(2, 28).flatmap(lambda n: st.permutations(range(n))))
@settings(max_examples=60)
def test_the_ranking_taught_is_the_ranking_read(template, order):
    for texts in ([f"candidate number {i}" for i in range(len(order))], [f"M > {i}, [B]" for i in range(len(order))]):
        direct = template.start(make(texts))
        answer = template.answer_for(direct, *order)
        step = direct.step(f"<think>[A] > [B]</think> <answer>{answer}</answer>")
        assert (step.status, direct.ranking()) == ("ok", [f"id{i}" for i in order]), answer


# ---------------------------------------------------------------- the kind


def test_a_template_starts_what_it_is_for():
    for template in BUNDLED:
        begun = template.start(make())
        assert type(begun) is MACHINES[template.kind]
        assert template.messages(begun) and begun.task == make()


def test_a_template_of_the_other_kind_is_refused():
    for template in BUNDLED:
        for kind in MACHINES.keys() - {template.kind}:
            with pytest.raises(UserError) as error:
                template.messages(MACHINES[kind](make()))
            fit = [t for t in BUNDLED if t.kind == kind]
            assert all(t.id in str(error.value) for t in [template, *fit]) and "\n" not in str(error.value)


@pytest.mark.parametrize("template", BUNDLED, ids=lambda t: t.id)
def test_no_prompt_is_longer_than_the_longest(template):
    texts = ["x" * n for n in (3, 40, 7, 1, 25, 60, 2, 33, 12)]
    episode, seen = template.start(make(texts)), []
    longest = sum(len(m["content"]) for m in template.longest(make(texts), len))
    dice = random.Random(2)
    while not episode.done:
        seen.append(sum(len(m["content"]) for m in template.messages(episode)))
        episode.step(f"[{label(dice.randrange(len(episode.pool)))}]")
    assert max(seen) <= longest
    if template.kind in ("exclusion", "direct", "allpairs"):  # these do show it
        assert max(seen) == longest


# ---------------------------------------------------------------- the hash


def test_the_hash_ignores_comments_order_and_spelling():
    reference = parse(source(), "a").hash
    shuffled = yaml.safe_dump({k: CONTENT[k] for k in reversed(CONTENT)}, sort_keys=False)
    users = CONTENT | {"user": {s: CONTENT["user"][s] for s in reversed(SCENARIOS)}}
    assert parse(f"# a comment\n{source()}\n# another\n", "b").hash == reference
    assert parse(shuffled, "c").hash == reference
    assert parse(yaml.safe_dump(users, sort_keys=False), "d").hash == reference
    assert parse(yaml.safe_dump(CONTENT, default_style='"'), "e").hash == reference


def test_what_a_file_leaves_out_is_the_default():
    # The hash of before there were kinds: what was made then is still of use.
    assert parse(source(kind="exclusion"), "a") == parse(source(), "b")
    assert parse(source(), "b").kind == "exclusion"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"kind": "direct"},
        {"user": CONTENT["user"] | {"rec-game": CONTENT["user"]["recommendation"]}},
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
    assert {t.id: t.hash for t in EXCLUSION + DIRECT} == {
        "label": "cf882d79ec82b4ca",
        "published": "73e1355f3ad378d2",
        "think-label": "fdb973d885abe9e6",
        "think-text": "63b2293ff5dfa645",
        "direct-label": "0bdd0bc1c72e6ed8",
        "direct-think-label": "64ecd582855f085a",
        "direct-think-text": "260de5483a1c7c18",
    }
    assert all(len(t.hash) == 16 for t in SORTING)
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
        ("", ["has to be a mapping"]),
        ("just text", ["has to be a mapping"]),
        ("- a\n- b", ["has to be a mapping"]),
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
        (source(user={s: "{context} {candidates}" for s in SCENARIOS[1:]}), ["user", "recommendation"]),
        (source(user=CONTENT["user"] | {"musik": "{context} {candidates}"}), ["user.musik", "passage", "rec-movie"]),
        (source(user=CONTENT["user"] | {3: "{context} {candidates}"}), ["user.3"]),
        (source(user=CONTENT["user"] | {"rec-game": "{context}"}), ["user.rec-game", "{candidates}"]),
        (source(user=CONTENT["user"] | {"rec-game": None}), ["user.rec-game"]),
        (source(user=CONTENT["user"] | {"rec-game": "{context} {candidates} {N}"}), ["user.rec-game", "{N}", "{n}"]),
        (source(user=CONTENT["user"] | {"rec-game": "{context} {candidates} {text}"}), ["user.rec-game", "{text}"]),
        (source(user=CONTENT["user"] | {"rec-game": "{context} {candidates} {candidates}"}), ["rec-game", "twice"]),
        (source(candidate="[{label}] {title}{text}"), ["candidate", "{title}", "{label}, {text}"]),
        (source(kind="exclude"), ["kind", "'exclude'", "exclusion or direct"]),
        (source(kind=None), ["kind", "None"]),
        (source() + "answer: text\n", ["answer occurs twice"]),
        (source().replace("  routing:", "  passage:"), ["passage occurs twice"]),
        (source() + "note: 2024-13-45\n", ["not valid YAML"]),
        ("[" * 1500, ["nested too deeply"]),
        (source(id="x").replace("id: x", 'id: "\\ud800"'), ["\\ud800", "no character"]),
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
