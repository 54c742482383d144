"""Read ranked candidates of recommenders as LLMRank publishes them (github.com/RUCAIBox/LLMRank), to be scored as a run.

==========================  =========================================================================================
candidates (``Games.pop``)  no header; a user and the items that one method recommends, best first: ``user``, tab, items
                            separated by spaces. It recommends among all items, so the right one may be missing
truth (``….test.inter``)    RecBole's header ``user_id:token``, ``item_id_list:token_seq``, ``item_id:token``, then tab-separated
                            lines: a user, the history, and the item chosen next
==========================  =========================================================================================

A user's right item that is not among the candidates counts 0. Only users that the candidates name are scored. An item that
occurs twice in a line, as in the file that joins several methods, counts at its first occurrence.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data_prep.readers.lines import table_columns, table_rows
from data_prep.readers.sniff import sniff
from iranker_verl.errors import UserError
from iranker_verl.evaluation.trec import Qrels, Run

TRUTH_HEADER = ("user_id:token", "item_id:token")


def is_truth(path: Path) -> bool:
    """Return whether a file's header is that of such a truth."""
    return sniff(path).has(*TRUTH_HEADER)


def read_candidates(path: Path) -> Run:
    """Return each user's candidates; scores fall by one a rank. Raise UserError for a user twice, or without candidates."""
    run: Run = {}
    for row, (user, listed) in table_rows(path, "\t", 2, Counter()):
        items = list(dict.fromkeys(listed.split()))
        if not user or not items:
            raise UserError(f"{path} row {row}: a user and candidates are needed; correct or remove the row")
        if user in run:
            raise UserError(f"{path} row {row}: user {user} occurs twice; remove one")
        run[user] = {item: float(len(items) - index) for index, item in enumerate(items)}
    return run


def read_truth(path: Path, users: Run) -> Qrels:
    """Return the item that each of ``users`` chose next, with grade 1. Raise UserError where a user is missing or has two."""
    truth: Qrels = {}
    for row, (user, item) in table_columns(path, "\t", [[name] for name in TRUTH_HEADER], 2, Counter()):
        if user not in users:
            continue
        if user in truth:
            raise UserError(f"{path} row {row}: user {user} occurs twice; remove one")
        truth[user] = {item: 1}
    if missing := [user for user in users if user not in truth]:
        raise UserError(f"{path}: no user {missing[0]} ({len(missing)} of the candidates' users are missing)")
    return truth
