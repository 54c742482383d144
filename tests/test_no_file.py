"""A folder where a file is expected is no such file: one line, and no traceback."""

import pytest

from data_prep.schema import MANIFEST, read_manifest
from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import read_traces
from iranker_verl.inference.engine import check_model


@pytest.mark.parametrize(
    ("name", "read"),
    [(MANIFEST, read_manifest), (MANIFEST, read_traces), ("traces.jsonl", read_traces), ("config.json", check_model)],
    ids=["prepared data", "a store", "traces", "a model"],
)
def test_a_folder_called_like_a_file(tmp_path, name, read):
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"no such file|no traces\.jsonl or|no config\.json"):
        read(tmp_path)
