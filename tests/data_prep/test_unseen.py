"""Zero-shot: the guard that nothing of what is tested on was trained on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.checks.unseen import check_unseen
from data_prep.schema import SCHEMA
from iranker_verl.errors import UserError
from tests.data_prep.prepared_folder import row


def write(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path)
    return path


def test_scenarios_that_are_apart(tmp_path):
    train = write(
        tmp_path / "train.parquet",
        row("rec-movie", 0),
        row("router-cost", 1, group="How tall is the tower?", context="How tall is the tower? Prices: …"),
        row("router-cost", 2, group="Another", context="Another. Prices: …"),
    )
    # the words are those of a routing query, so it is counted; "context 5" is not
    test = write(tmp_path / "test.parquet", row("passage-5", 0, context="how tall is the TOWER"), row("passage-7", 5))
    found = check_unseen([train], test)
    assert found.trained == ("rec-movie", "router-cost") and found.tested == ("passage-5", "passage-7")
    assert (found.queries, found.shared_queries) == (2, 1)


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (row("rec-game", 7), "row 1: its scenario 'recommendation'"),  # another dataset, the same scenario
        (row("own-films", 7, scenario="recommendation"), "row 1: its scenario 'recommendation'"),
        # a row whose scenario is misnamed is found all the same
        (row("rec-movie", 7, scenario="passage", context="q"), "row 1: its dataset 'rec-movie'"),
        (row("passage-5", 7, task_id="rec-movie:3"), "row 1: its task 'rec-movie:3'"),
    ],
)
def test_what_is_tested_on_is_found_in_training(tmp_path, trained, words):
    train = write(tmp_path / "train.parquet", row("passage-5", 0), trained)
    test = write(tmp_path / "test.parquet", row("rec-movie", 2), row("rec-movie", 3))
    with pytest.raises(UserError) as error:
        check_unseen([train], test)
    message = str(error.value)
    assert words in message and "train.parquet" in message and "test.parquet row" in message and "\n" not in message


def test_every_training_file_is_looked_at(tmp_path):
    files = [write(tmp_path / "a.parquet", row("passage-5", 0)), write(tmp_path / "b.parquet", row("rec-music", 0))]
    test = write(tmp_path / "test.parquet", row("rec-movie", 2))
    assert check_unseen(files[:1], test).trained == ("passage-5",)
    with pytest.raises(UserError, match=r"b\.parquet row 0"):
        check_unseen(files, test)


def test_there_has_to_be_something_to_test_on(tmp_path):
    train = write(tmp_path / "train.parquet", row("passage-5", 0))
    with pytest.raises(UserError, match="no task to test on"):
        check_unseen([train], write(tmp_path / "test.parquet"))
