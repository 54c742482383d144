"""Roles: what a system is in the results, by a field and not by its name."""

from __future__ import annotations

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.systems import Role, check_roles, main_system, role_by_name, with_role


@pytest.mark.parametrize(
    ("roles", "main"),
    [
        ({"before": "before", "after": "after"}, "after"),
        ({"bm25": "baseline", "mine": "model"}, "mine"),
        ({"after": "after", "zero-shot": "zero-shot"}, "zero-shot"),
        ({"first": "model", "second": "after"}, "second"),
        ({"before": "before", "bm25": "baseline"}, None),
        ({}, None),
    ],
)
def test_the_system_that_a_report_is_about(roles, main):
    assert main_system({system: Role(role) for system, role in roles.items()}) == main


def test_where_no_role_is_named_the_name_says_it():
    names = ("before", "after", "zero-shot", "mine")
    assert [str(role_by_name(name)) for name in names] == [*names[:3], "model"]
    assert role_by_name("bm25", baseline=True) == Role.BASELINE


def test_only_one_system_is_the_one_before_or_after_training():
    check_roles({"a": Role.MODEL, "b": Role.MODEL, "c": Role.BASELINE, "d": Role.BASELINE, "e": Role.AFTER})
    with pytest.raises(UserError, match="a and b both have the role after"):
        check_roles({"a": Role.AFTER, "b": Role.AFTER})
    assert with_role({"a": Role.AFTER}, Role.AFTER) == "a" and with_role({"a": Role.AFTER}, Role.BEFORE) is None
