r"""One module a raw format. Each has a function that finds its :class:`~data_prep.tasks.Source`\s among some files.

Every function takes the files as :class:`~data_prep.readers.sniff.RawFile`\s and the folder that they were found in, and yields
sources, and :class:`~data_prep.readers.sniff.NotRead` for files that it knows and leaves aside.
"""

from data_prep.sources.amazon import find_amazon
from data_prep.sources.custom import find_own
from data_prep.sources.graphrouter import find_graphrouter
from data_prep.sources.llmrouter import find_llmrouter
from data_prep.sources.movielens import find_movielens
from data_prep.sources.msmarco import find_msmarco
from data_prep.sources.ranking_bench import find_ranking_bench
from data_prep.sources.recbole import find_recbole
from data_prep.sources.routerbench import find_routerbench
from data_prep.sources.trec import find_trec
from data_prep.sources.wikiqa import find_wikiqa

FINDERS = (
    find_movielens,
    find_amazon,
    find_recbole,
    find_graphrouter,
    find_llmrouter,
    find_routerbench,
    find_msmarco,
    find_trec,
    find_wikiqa,
    find_ranking_bench,
    find_own,
)
