"""TREC test collections: the best candidates of a first retrieval, with graded judgements (e.g. TREC Deep Learning).

==================  =================================================================================================
judgements          qrels, four columns (query id, 0, passage id, grade), in a file named ``…qrel…``
candidates          a JSON array of ``{"query", "hits": [{"qid", "docid", "content", "rank", "score"}, …]}``, rank_llm's
                    (github.com/castorini/rank_llm) ``retrieve_results…``; or
                    a run, six columns (query id, Q0, passage id, rank, score, name), with the text of its passages in
                    ``collection.tsv`` (id, tab, text) and of its queries in a file named ``…topics…`` or ``…queries…``
                    (id, tab, text)
==================  =================================================================================================

Columns are separated by white space, files may be gzipped. Files belong together by their names, wherever they lie:
``dl19`` for names with ``dl19``, ``test2019`` or ``2019qrels``, else what is left of a name without the words of its role,
else the folder. The dataset is called after it, ``trec-dl19``. Where candidates with text are there, runs of the same name are not read.

Every query is a task: its ``options.passages`` (20 where that is not given) candidates of the highest score (equal ones
by rank), with their grades as relevance; an unjudged passage has 0, and so has one with a negative grade. A collection
like this is for testing, so all its tasks are test tasks, and ``max_chars`` does not leave out any of them.

Policy. Dropped and counted: a query without judgements, without a candidate, or with one only; one whose candidates are
all irrelevant (grade 0) or all of one grade; a passage without text, before the best are taken; a judged query that has
no candidates. Refused, by file and row: a line with another number of columns, a grade, rank or score that is no number,
a passage twice in a query, a judgement twice with two grades, a passage that the collection does not have, cut-off JSON.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_prep.options import Options
from data_prep.readers import streamed
from data_prep.readers.lines import identifier, number, text_lines
from data_prep.readers.text import shown
from data_prep.scenarios import passage
from data_prep.split import TEST
from data_prep.tasks import Draft, Dropped, Source, Unit, tables
from iranker_verl.errors import UserError

PASSAGES = 20
_SUFFIXES = ("", ".txt", ".tsv", ".trec", ".run", ".qrels", ".json")
_DL_YEAR = re.compile(r"(?<![a-z])dl[-_]?(\d\d)(?!\d)|test20(\d\d)(?!\d)|^20(\d\d)\.?qrels")
_ROLE_WORDS = (
    r"trec|q?rels?|topics?|quer(?:y|ies)|runs?|retrieve|results?|bm25|passages?|pass|collection|top\d+|msmarco"
)
_RUN_LINE = re.compile(rb"\S+[ \t]+[Qq]0[ \t]+\S+[ \t]+\d+[ \t]+[-+\d.eE]+[ \t]+\S+[ \t]*(?:\r?\n|$)")
_TABBED_LINE = re.compile(rb"[^\t\n]+\t[^\t\n]+(?:\n|$)")
_HITS = re.compile(rb'\s*\[\s*\{\s*"query"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"hits"\s*:')


@dataclass(frozen=True)
class Hit:
    """A candidate. ``text`` is None where it stands in the collection."""

    id: str
    rank: float
    score: float
    text: str | None = None


@dataclass(frozen=True)
class Collection:
    """The files of one test collection: ``hits`` have text, or else ``run``, ``topics`` and ``texts`` are there."""

    dataset: str
    qrels: Path
    hits: Path | None
    run: Path | None
    topics: Path | None
    texts: Path | None

    def files(self) -> tuple[Path, ...]:
        every = (self.qrels, self.hits) if self.hits else (self.qrels, self.run, self.topics, self.texts)
        return tuple(path for path in every if path is not None)


def find(files: Sequence[Path], raw: Path) -> Iterator[Source]:
    """A source for each test collection. UserError where one has no judgements, no candidates, or no text."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    texts = []
    for path in files:
        if (role := _role(path)) == "texts":
            texts.append(path)
        elif role:
            found[_key(path)][role].append(path)
    for key, own in sorted(found.items()):
        if collection := _collection(f"trec-{key}", own, texts):
            yield Source("TREC", (collection.dataset,), collection.files(), partial(units, collection))


def units(collection: Collection, options: Options, datasets: Sequence[str], work: object = None) -> list[Unit]:
    """One unit: a test collection is small."""
    return [Unit(collection.dataset, make, (collection, options))]


def _role(path: Path) -> str | None:
    """``qrels``, ``hits``, ``run``, ``topics`` or ``texts``; None for a file of something else."""
    name = path.name.lower().removesuffix(".gz")
    if Path(name).suffix not in _SUFFIXES and "qrel" not in name:
        return None
    start = streamed.head(path)
    if name.endswith(".json"):
        return "hits" if _HITS.match(start) else None
    if _RUN_LINE.match(start):
        return "run"
    if "qrel" in name:
        return "qrels"
    if not _TABBED_LINE.match(start):
        return None
    return "texts" if "collection" in name else "topics" if "topics" in name or "queries" in name else None


def _key(path: Path) -> str:
    """What a file's name says about the collection: ``dl19``, else what its role leaves of it, else its folder's name."""
    name = path.name.lower().removesuffix(".gz")
    if year := _DL_YEAR.search(name):
        return f"dl{year[1] or year[2] or year[3]}"
    stem = name.removesuffix(Path(name).suffix) if Path(name).suffix in _SUFFIXES else name
    words = [word for word in re.split(r"[^a-z0-9]+", stem) if word and not re.fullmatch(_ROLE_WORDS, word)]
    return "-".join(words) or re.sub(r"[^a-z0-9_.-]+", "-", path.parent.resolve().name.lower()).strip("-") or "own"


def _collection(dataset: str, own: Mapping[str, Sequence[Path]], texts: Sequence[Path]) -> Collection | None:
    """The files of a collection put together; None where there are topics only. UserError for a part that is missing."""

    def one(role: str, paths: Sequence[Path]) -> Path | None:
        if len(paths) > 1:
            raise UserError(f"{paths[0]} and {paths[1]} are both {role} of {dataset}; keep the one that you want")
        return paths[0] if paths else None

    qrels, hits = one("judgements", own.get("qrels", ())), one("candidates", own.get("hits", ()))
    if hits is not None and qrels is not None:
        return Collection(dataset, qrels, hits, None, None, None)
    runs = own.get("run", ())
    if candidates := hits or next(iter(runs), None):
        if qrels is None:
            raise UserError(f"{candidates}: the judgements of {dataset} are missing; put its qrels file beside it")
        run, topics, text = one("runs", runs), one("queries", own.get("topics", ())), one("passages", texts)
        if topics is None or text is None:
            raise UserError(
                f"{run}: a run without text; put collection.tsv (id, tab, passage) and the topics (id, tab, query) "
                "beside it, or rank_llm's retrieve_results JSON, which has both"
            )
        return Collection(dataset, qrels, None, run, topics, text)
    if qrels is not None:
        raise UserError(
            f"{qrels}: judgements without candidates; put rank_llm's retrieve_results JSON beside it, or a run with "
            "collection.tsv and topics"
        )
    return None


def make(collection: Collection, options: Options, dropped: Dropped) -> Iterator[pa.Table]:
    """The tasks of a test collection."""
    yield from tables(_drafts(collection, options, dropped))


def _drafts(collection: Collection, options: Options, dropped: Dropped) -> Iterator[Draft]:
    counts, grades = dropped[collection.dataset], read_qrels(collection.qrels)
    wanted = options.passages or PASSAGES
    queries = read_hits(collection.hits) if collection.hits else _with_text(collection, wanted)
    seen = set()
    for id, text, hits in queries:
        if id and id in seen:
            raise UserError(f"{collection.hits or collection.run}: query {shown(id)} is there twice; keep one of them")
        seen.add(id)
        full = [hit for hit in hits if hit.text and hit.text.strip()]
        counts["passages: empty"] += len(hits) - len(full)
        judged = grades.get(id, {})
        rows = [(hit.id, hit.text or "", max(judged.get(hit.id, 0.0), 0.0)) for hit in best(full, wanted)]
        if reason := _unfit(text, judged, [grade for *_, grade in rows]):
            counts[reason] += 1
        else:
            yield passage.draft(collection.dataset, passage.query(id, text, rows), TEST)
    counts["queries: judged, without candidates"] += len(grades.keys() - seen)


def _unfit(text: str, judged: Mapping[str, float], relevance: Sequence[float]) -> str | None:
    if not text.strip():
        return "queries: empty"
    if len(relevance) < 2:
        return "queries: fewer than 2 candidates"
    if not judged:
        return "queries: not judged"
    if not any(relevance):
        return "queries: no relevant passage among the candidates"
    if len(set(relevance)) == 1:
        return "queries: all candidates equally relevant"
    return None


def best(hits: Sequence[Hit], count: int) -> list[Hit]:
    """The first ``count`` by score, equal ones by rank."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.rank))[:count]


def read_qrels(path: Path) -> dict[str, dict[str, float]]:
    """Grades by query and passage id."""
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    for row, (query, _, document, grade) in _columns(path, 4, "query, 0, passage, grade"):
        value = number(grade, path, row, "grade")
        if grades[query].setdefault(document, value) != value:
            raise UserError(f"{path} row {row}: passage {shown(document)} of query {shown(query)} has a second grade")
    if not grades:
        raise UserError(f"{path}: the file is empty; fetch it again")
    return dict(grades)


def read_hits(path: Path) -> Iterator[tuple[str, str, list[Hit]]]:
    """``(query id, query, candidates)`` from rank_llm's JSON; the id of a query without candidates is ""."""
    for row, value in streamed.json_items(path):
        where = f"{path} row {row}"
        hits = value.get("hits") if isinstance(value, dict) else None
        if not isinstance(hits, list) or not isinstance(value.get("query"), str):
            raise UserError(f"{where}: not an object with a text query and a list hits; fetch the file again")
        found: dict[str, Hit] = {}
        ids = set()
        for hit in hits:
            if not isinstance(hit, dict) or not isinstance(hit.get("content"), str):
                raise UserError(f"{where}: a hit is {shown(str(hit))}, without a text content; fetch the file again")
            id, document = (identifier(hit.get(key), path, row, key) for key in ("qid", "docid"))
            rank, score = (number(str(hit.get(key)), path, row, key) for key in ("rank", "score"))
            ids.add(id)
            _add(found, Hit(document, rank, score, hit["content"]), where)
        if len(ids) > 1:
            raise UserError(f"{where}: its hits have different qids, {', '.join(map(shown, sorted(ids)[:2]))}")
        yield "".join(ids), value["query"], list(found.values())


def _with_text(collection: Collection, count: int) -> Iterator[tuple[str, str, list[Hit]]]:
    """The same from a run, its topics and the passages' texts; only the texts that are needed are kept."""
    assert collection.run and collection.topics and collection.texts
    runs: dict[str, dict[str, Hit]] = defaultdict(dict)
    for row, (query, _, document, rank, score, _) in _columns(
        collection.run, 6, "query, Q0, passage, rank, score, name"
    ):
        place, value = (number(text, collection.run, row, name) for name, text in (("rank", rank), ("score", score)))
        _add(runs[query], Hit(document, place, value), f"{collection.run} row {row}")
    hits = {query: best(list(found.values()), count) for query, found in runs.items()}
    needed = {hit.id for found in hits.values() for hit in found}
    texts = {id: text for id, text in _texts(collection.texts) if id in needed}
    if missing := sorted(needed - texts.keys()):
        raise UserError(f"{collection.texts}: no passage {shown(missing[0])}, which is in {collection.run}")
    queries = dict(_texts(collection.topics))
    for query, found in hits.items():
        yield query, queries.get(query, ""), [Hit(hit.id, hit.rank, hit.score, texts[hit.id]) for hit in found]


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    for row, text in text_lines(path):
        id, tab, rest = text.partition("\t")
        if not tab:
            raise UserError(
                f"{path} row {row}: {shown(text)} has no tab between id and text; correct or remove the row"
            )
        yield id.strip(), rest


def _columns(path: Path, count: int, names: str) -> Iterator[tuple[int, list[str]]]:
    for row, text in text_lines(path):
        fields = text.split()
        if len(fields) != count:
            raise UserError(
                f"{path} row {row}: {shown(text)} has {len(fields)} columns, not the {count} of TREC ({names}), separated "
                "by white space"
            )
        yield row, fields


def _add(found: dict[str, Hit], hit: Hit, where: str) -> None:
    if found.setdefault(hit.id, hit) is not hit:
        raise UserError(f"{where}: passage {shown(hit.id)} is there twice for one query; keep one of them")
