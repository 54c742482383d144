"""Options as fields of a dataclass: one place for default, type, range and help, for recipes, the command line and checks."""

import dataclasses
import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.options import Options
from iranker_verl.cli import data
from iranker_verl.errors import UserError
from iranker_verl.options import as_defaults, check_options, option, options_of


@dataclasses.dataclass
class Inner:
    share: float = option(0.5, "a share", least=0, most=1)


@dataclasses.dataclass
class Some:
    count: int = option(1, "a count", least=1)
    rate: float = option(0.1, "a rate", above=0)
    kind: str | None = option(None, "a kind", choices=("a", "b"))
    names: list[str] | None = option(None, "names")
    flag: bool = option(True, "a flag")
    inner: Inner = option(Inner, "a group")


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.text(max_size=3))


@given(count=ANY, rate=ANY, kind=ANY, flag=ANY, share=ANY)
def test_what_is_admitted_is_of_the_type_and_in_the_range(count, rate, kind, flag, share):
    values = Some(count, rate, kind, None, flag, Inner(share))
    right = {
        "count": type(count) is int and count >= 1,
        "rate": type(rate) in (int, float) and math.isfinite(rate) and rate > 0,
        "kind": kind in (None, "a", "b"),
        "flag": type(flag) is bool,
        "inner.share": type(share) in (int, float) and 0 <= share <= 1,
    }
    wrong = [name for name, holds in right.items() if not holds]
    if not wrong:
        return check_options(values)
    with pytest.raises(UserError) as error:
        check_options(values, "x.")
    assert str(error.value).startswith(f"x.{wrong[0]}=") and "has to be" in str(error.value)


def test_a_message_says_what_a_value_has_to_be():
    words = {one.name: str(one) for one in options_of(Some) if one.name != "inner"}
    assert words == {
        "count": "a whole number, 1 or more",
        "rate": "a number, above 0",
        "kind": "one of a, b, or null",
        "names": "a list, or null",
        "flag": "true or false",
    }
    assert str(options_of(Inner)[0]) == "a number, from 0 to 1"


def test_all_options_may_be_left_as_they_are():
    given = as_defaults(Options, leave_out=("seed",))
    assert {one.name for one in options_of(given)} == {one.name for one in options_of(Options)} - {"seed"}
    check_options(given())
    with pytest.raises(UserError, match="history=0 has to be a whole number, 1 or more"):
        check_options(given(history=0))


def test_the_command_line_has_every_option_of_preparation_with_its_default():
    parameters = inspect.signature(data.prepare).parameters
    assert "options" not in parameters
    for one in options_of(Options):
        assert parameters[one.name].default == one.default
        assert one.limits["help"] in str(parameters[one.name].annotation.__metadata__[0].help)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"history": 2.5}, "history=2.5 has to be a whole number"),
        ({"history": True}, "history=True"),
        ({"candidates": 1}, "2 or more"),
        ({"rows": "stats"}, "rows=stats has to be one of episodes, states, direct"),
        ({"test_fraction": 0}, "above 0"),
        ({"test_fraction": 1.0}, "nothing to train on"),
        ({"near_duplicate": 1.5}, "at most 1"),
        ({"effect_weight": 0.5}, "belong together"),
        ({"max_test": 0}, "or null"),
    ],
)
def test_options_of_preparation_that_make_no_sense(given, words):
    with pytest.raises(UserError, match=words):
        Options(**given)
