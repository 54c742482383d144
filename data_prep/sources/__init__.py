"""One module a raw format. Each has ``find(files, raw)``: the :class:`~data_prep.tasks.Source`\\s among some files."""

from data_prep.sources import (
    amazon,
    graphrouter,
    llmrouter,
    movielens,
    msmarco,
    ranking_bench,
    recbole,
    routerbench,
    trec,
    wikiqa,
)
from data_prep.sources import custom as own

FORMATS = (
    movielens,
    amazon,
    recbole,
    graphrouter,
    llmrouter,
    routerbench,
    msmarco,
    trec,
    wikiqa,
    ranking_bench,
    own,
)
