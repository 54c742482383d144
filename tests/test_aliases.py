"""YAML that a user gives is measured before it is read, so that a few lines of aliases hold up nothing."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.aliases import MAX_VALUES, check_aliases
from iranker_verl.errors import UserError
from iranker_verl.evaluation.prices import read_price
from iranker_verl.ranking import templates

LIST_BOMB = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
MERGED = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, x{n}: *a{n - 1}}}\n" for n in range(1, 99))
BOMBS = {"lists": LIST_BOMB, "merged": MERGED, "itself": "a: &a [*a]\n", "nested": "a: " + "[" * 50_000 + "\n"}


def from_recipe(path):
    pytest.importorskip("verl")
    from iranker_verl.training.main import compose_recipe

    compose_recipe(path, [])


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize(
    "reader",
    [lambda path: templates.load(str(path)), lambda path: read_price(path, "a0"), from_recipe],
    ids=["template", "prices", "recipe"],
)
def test_a_bomb_of_aliases_is_one_short_error(tmp_path, bomb, reader):
    path = tmp_path / "mine.yaml"
    path.write_text(BOMBS[bomb])
    with pytest.raises(UserError, match=r"mine\.yaml: its (aliases|values) ") as error:
        reader(path)
    assert len(str(error.value)) < len(str(path)) + 100


def test_a_bomb_beside_the_recipe_that_its_defaults_name(tmp_path):
    (tmp_path / "other.yaml").write_text(LIST_BOMB)
    (tmp_path / "mine.yaml").write_text("defaults: [other]\n")
    with pytest.raises(UserError, match=r"other\.yaml: its aliases"):
        from_recipe(tmp_path / "mine.yaml")


VALUES = st.recursive(
    st.integers(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=3), below, max_size=4),
    max_leaves=30,
)


@given(VALUES)
def test_what_no_alias_makes_long_passes(value):
    shared = [value, value]  # an anchor and an alias
    check_aliases(yaml.safe_dump([shared, shared]), "file")


def test_the_limit_counts_each_alias_as_all_that_it_stands_for():
    line = "a: &a [" + "x, " * 98 + "x]\n"  # its key, itself and 99 values
    fits = (MAX_VALUES - 1) // 101
    check_aliases(line + "".join(f"b{n}: *a\n" for n in range(fits - 1)), "file")
    with pytest.raises(UserError, match="file: its aliases"):
        check_aliases(line + "".join(f"b{n}: *a\n" for n in range(fits)), "file")
