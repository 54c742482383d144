"""Price tables: dollars by hand, and what is refused."""

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.prices import Price, read_price


def test_by_hand(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("gpt: {input: 2.5, output: 10}\nfree: {input: 0, output: 0}\n")
    assert read_price(path, "gpt") == Price(2.5, 10)
    assert read_price(path, "gpt").dollars(1000, 30) == pytest.approx(0.0025 + 0.0003)
    assert read_price(path, "free").dollars(1e9, 1e9) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: {input: 1, output: 2}", "no price for 'gpt'; it names other"),
        ("gpt: {input: 1}", "gpt needs exactly input and output"),
        ("gpt: {input: 1, output: 2, cached: 1}", "exactly"),
        ("gpt: {input: -1, output: 2}", "gpt.input is -1"),
        ("gpt: {input: 1, output: much}", "gpt.output is 'much'"),
        ("gpt: {input: 1, output: true}", "gpt.output is True"),
        ("gpt: {input: 1, output: .nan}", "gpt.output is nan"),
        ("- gpt", "it needs"),
        ("gpt: {", "not valid YAML"),
        ("", "it needs"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_price(path, "gpt")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_price(tmp_path / "none.yaml", "gpt")
