"""The one line that says what a program ended of, in whatever process it was raised."""

import pytest

from iranker_verl.errors import UserError, described, first_line, last_raised, user_error_of

SENTENCE = "data.csv row 3: effect is x; give a number"


def caught(make):
    try:
        make()
    except BaseException as error:
        return error


def raise_from(outer, inner):
    raise outer from inner


def ray_task_error(cause):
    """As ``ray.get`` raises it: an instance of Ray's class and of the cause's."""
    ray = pytest.importorskip("ray")
    text = (
        f"ray::Runner.run() (pid=1, ip=1.2.3.4)\\n  File x\\n{type(cause).__module__}.{type(cause).__name__}: {cause}"
    )
    return ray.exceptions.RayTaskError(
        "run", text.replace("\\\\n", "\\n"), cause, "t", 1, "1.2.3.4"
    ).as_instanceof_cause()


def actor_that_failed_to_start():
    ray = pytest.importorskip("ray")
    return ray.exceptions.ActorDiedError(ray_task_error(UserError(SENTENCE)).args and _task_error(UserError(SENTENCE)))


def _task_error(cause):
    ray = pytest.importorskip("ray")
    text = f"ray::Runner.__init__()\niranker_verl.errors.UserError: {cause}"
    error = ray.exceptions.RayTaskError("run", text, cause, "t", 1, "1.2.3.4")
    error._actor_id = "00"
    return error


WAYS = {
    "itself": lambda: UserError(SENTENCE),
    "from another": lambda: caught(lambda: raise_from(UserError(SENTENCE), KeyError("x"))),
    "under another": lambda: caught(lambda: raise_from(RuntimeError("stage"), UserError(SENTENCE))),
    "in a group": lambda: ExceptionGroup("two", [ValueError("a"), UserError(SENTENCE)]),
    "in a Ray task": lambda: ray_task_error(UserError(SENTENCE)),
    "in a Ray task of a Ray task": lambda: ray_task_error(ray_task_error(UserError(SENTENCE))),
    "under another in a Ray task": lambda: ray_task_error(
        caught(lambda: raise_from(RuntimeError("x"), UserError(SENTENCE)))
    ),
    "in an actor's creation": actor_that_failed_to_start,
    "in a process of a pool": lambda: caught(lambda: raise_from(UserError(SENTENCE), RuntimeError("remote traceback"))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_users_mistake_keeps_its_sentence(way):
    assert user_error_of(WAYS[way]()) == SENTENCE


def test_where_there_is_no_users_mistake_none_is_found():
    for error in (ValueError("x"), ray_task_error(ValueError("x")), ExceptionGroup("g", [ValueError("UserError")])):
        assert user_error_of(error) is None


def test_an_exception_of_a_worker_is_described_by_its_cause():
    assert described(ray_task_error(ray_task_error(ValueError("bad weather\nand more")))) == "ValueError: bad weather"
    assert described(KeyError()) == "KeyError: KeyError"


def test_an_exception_that_refers_to_itself_ends():
    error = ValueError("x")
    error.__cause__ = error
    assert user_error_of(error) is None


def test_the_last_exception_of_a_log_that_says_something():
    lines = [
        "a line",
        "x.y.KeyError: 'a'",
        "(W pid=1, ip=::1) z.ValueError: b",
        "ray.exceptions.RayTaskError(ValueError): r",
    ]
    assert last_raised(lines) == ("z.ValueError", "b")
    assert last_raised(lines[-1:]) == ("ray.exceptions.RayTaskError", "r")
    assert last_raised([*lines, "a.b.UserError: c", "KeyError: d"]) == ("UserError", "c")
    vllm = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert last_raised(["(EngineCore pid=3) ValueError: no room for the cache", vllm]) == (
        "ValueError",
        "no room for the cache",
    )
    assert last_raised(["Error rates: 3", "an Errorless line", ""]) is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one\rtwo"), "one"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError(b"lexical error\n  ^"), "lexical error"),  # as some parsers raise it
        (OSError(2, "no such file"), "[Errno 2] no such file"),
        (ValueError("x" * 300), "x" * 200),
    ],
)
def test_the_first_line_of_an_error_is_one_short_line(error, line):
    assert first_line(error) == line
