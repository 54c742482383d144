"""TREC test collections: the best candidates of a first retrieval, with graded judgements (e.g. TREC Deep Learning).

==================  =================================================================================================
judgements          qrels, four columns (query id, 0, passage id, grade), in a file named ``…qrel…``; or BEIR's, three
                    columns with a header (query-id, corpus-id, score)
candidates          a JSON array of ``{"query", "hits": [{"qid", "docid", "content", "rank", "score"}, …]}``, rank_llm's
                    (github.com/castorini/rank_llm) ``retrieve_results…``; or
                    a run, six columns (query id, Q0, passage id, rank, score, name), with the text of its passages in
                    ``collection.tsv`` (id, tab, text) or BEIR's ``corpus.jsonl`` (``_id``, ``title``, ``text``), and of
                    its queries in a file named ``…topics…`` or ``…queries…`` (id, tab, text; or BEIR's JSON lines)
==================  =================================================================================================

Columns are separated by white space, files may be gzipped. Files belong together by their names, wherever they lie:
``dl19`` for names with ``dl19``, ``test2019``, ``2019qrels`` or ``2019_queries``, else what is left of a name without the words of its role,
else the folder (around BEIR's ``qrels``, of which test goes before dev and train). The dataset is called after it,
``trec-dl19``. Where candidates with text are there, runs of the same name are not read.

Every query is a task: its ``options.passages`` (20 where that is not given) candidates of the highest score (equal ones
by rank), with their grades as relevance; an unjudged passage has 0, and so has one with a negative grade. A collection
like this is for testing, so all its tasks are test tasks, and ``max_chars`` does not leave out any of them.

Policy. Dropped and counted: a query without judgements, without a candidate, or with one only; one whose candidates are
all irrelevant (grade 0) or all of one grade; a passage without text, before the best are taken; a judged query that has
no candidates. Refused, by file and row: a line with another number of columns, a grade, rank or score that is no number,
a passage twice in a query, a judgement twice with two grades, an id twice with two texts (equal repeats pass), a passage
that the collection does not have, cut-off JSON.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.options import Options
from data_prep.readers.documents import json_records
from data_prep.readers.filenames import stem_of, suffix_of
from data_prep.readers.lines import identifier, limited_number, number, plain_text, text_lines
from data_prep.readers.sniff import NotRead, RawFile
from data_prep.readers.text import shown
from data_prep.readers.trec import BEIR_COLUMNS, qrels_lines, run_lines
from data_prep.scenarios import passage
from data_prep.split import TEST
from data_prep.tasks import Draft, Dropped, Source, Unit
from iranker_verl.errors import UserError

PASSAGES = 20
_SUFFIXES = ("", ".txt", ".tsv", ".trec", ".run", ".qrels", ".json", ".jsonl")
_DL_YEAR = re.compile(r"(?<![a-z])dl[-_]?(\d\d)(?!\d)|test20(\d\d)(?!\d)|^20(\d\d)[._]?(?:qrels|queries)")
_ROLE_WORDS = (
    r"trec|q?rels?|topics?|quer(?:y|ies)|runs?|retrieve|results?|bm25|passages?|pass|collection|top\d+|msmarco"
)
_RUN_LINE = re.compile(rb"\S+[ \t]+[Qq]0[ \t]+\S+[ \t]+\d+[ \t]+[-+\d.eE]+[ \t]+\S+[ \t]*(?:\r?\n|$)")
_TABBED_LINE = re.compile(rb"[^\t\n]+\t[^\t\n]+(?:\n|$)")
_BEIR_TEXTS = {"_id", "text"}


@dataclass(frozen=True)
class Hit:
    """A candidate. ``text`` is None where the collection has it."""

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
        """All files of the collection."""
        every = (self.qrels, self.hits) if self.hits else (self.qrels, self.run, self.topics, self.texts)
        return tuple(path for path in every if path is not None)


def find_trec(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield a source for each test collection. Raise UserError where one has no judgements, no candidates, or no text."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    texts = []
    beir = {_beir_folder(file.path): _key(file) for file in files if file.has(*BEIR_COLUMNS)}
    for file in files:
        if (role := _role(file)) == "texts":
            texts.append(file.path)
        elif role:
            key = beir.get(file.path.resolve().parent, "") if role == "run" else ""
            found[key or _key(file)][role].append(file.path)
    for key, own in sorted(found.items()):
        own["qrels"], others = _best_split(own["qrels"])
        yield from (NotRead(path, f"{own['qrels'][0].name} beside it is read") for path in others)
        if collection := _collection(f"trec-{key}", own, texts):
            used = collection.files()
            unit = Unit(collection.dataset, collection_drafts, (collection,))
            yield Source("TREC", (collection.dataset,), used, [unit])
            unread = {path for paths in own.values() for path in paths}.difference(used)
            yield from (NotRead(path, f"{used[1].name} has the candidates with their text") for path in sorted(unread))


def _best_split(qrels: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the judgements to use, and those of BEIR's other splits."""
    for name in ("test", "dev", "train"):
        if own := [path for path in qrels if stem_of(path) == name]:
            return own, [path for path in qrels if path not in own]
    return list(qrels), []


def _role(file: RawFile) -> str | None:
    """Return ``qrels``, ``hits``, ``run``, ``topics`` or ``texts``; None for a file of something else."""
    name, start = file.name.lower(), file.start.lstrip()
    if file.has(*BEIR_COLUMNS):
        return "qrels"
    if file.suffix not in _SUFFIXES and "qrel" not in name:
        return None
    if file.is_json:
        if isinstance(file.first, dict) and isinstance(file.first.get("hits"), list):
            return "hits"
        beir = {*file.columns} >= _BEIR_TEXTS
        return "texts" if beir and "corpus" in name else "topics" if beir and "queries" in name else None
    if _RUN_LINE.match(start):
        return "run"
    if "qrel" in name:
        return "qrels"
    if not _TABBED_LINE.match(start):
        return None
    return "texts" if "collection" in name else "topics" if "topics" in name or "queries" in name else None


def _key(file: RawFile) -> str:
    """Return what a file's name says about the collection: ``dl19``, or the rest of it without the words of its role, or its folder's name."""
    name, folder = file.name.lower(), file.path.resolve().parent
    if year := _DL_YEAR.search(name):
        return f"dl{year[1] or year[2] or year[3]}"
    stem = stem_of(file.path).lower() if file.suffix in _SUFFIXES else name
    words = [word for word in re.split(r"[^a-z0-9]+", stem) if word and not re.fullmatch(_ROLE_WORDS, word)]
    if file.has(*BEIR_COLUMNS) or {*file.columns} >= _BEIR_TEXTS:
        words, folder = [], _beir_folder(file.path)
    return "-".join(words) or re.sub(r"[^a-z0-9_.-]+", "-", folder.name.lower()).strip("-") or "own"


def _beir_folder(path: Path) -> Path:
    """Return the folder of a BEIR data set; its judgements lie in ``qrels`` below it."""
    folder = path.resolve().parent
    return folder.parent if folder.name == "qrels" else folder


def _collection(dataset: str, own: Mapping[str, Sequence[Path]], texts: Sequence[Path]) -> Collection | None:
    """Return the files of a collection; None where there are topics only. Raise UserError for a part that is missing."""

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
        beside = [path for path in texts if _beir_folder(path) == _beir_folder(qrels)]
        run, topics, text = one("runs", runs), one("queries", own.get("topics", ())), one("passages", beside or texts)
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


def collection_drafts(
    collection: Collection, options: Options, datasets: Sequence[str], dropped: Dropped
) -> Iterator[Draft]:
    """Yield the tasks of a test collection (a unit)."""
    counts, grades = dropped[collection.dataset], read_qrels(collection.qrels)
    wanted = options.passages or PASSAGES
    queries = read_hits(collection.hits) if collection.hits else _with_text(collection, wanted)
    seen = set()
    for id, text, hits in queries:
        if id and id in seen:
            raise UserError(f"{collection.hits or collection.run}: query {shown(id)} occurs twice; keep one of them")
        seen.add(id)
        full = [hit for hit in hits if hit.text and hit.text.strip()]
        counts["passages: empty"] += len(hits) - len(full)
        judged = grades.get(id, {})
        rows = [(hit.id, hit.text or "", max(judged.get(hit.id, 0.0), 0.0)) for hit in best_hits(full, wanted)]
        query = passage.graded_query(id, text, rows)
        yield from passage.draft_or_count(collection.dataset, query, TEST, _unfit(query, judged), dropped)
    counts["queries: judged, without candidates"] += len(grades.keys() - seen)


def _unfit(query: passage.Query, judged: Mapping[str, float]) -> str | None:
    if query.text and len(query.passages) > 1:
        if not judged:
            return "queries: not judged"
        if not any(query.relevance):
            return "queries: no relevant passage among the candidates"
    return passage.unfit_query(query)


def best_hits(hits: Sequence[Hit], count: int) -> list[Hit]:
    """Return the first ``count`` by score, equal ones by rank."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.rank))[:count]


def read_qrels(path: Path) -> dict[str, dict[str, float]]:
    """Return grades by query and passage id."""
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    for row, (query, document, given) in qrels_lines(path):
        value = limited_number(given, path, row, "grade")
        if grades[query].setdefault(document, value) != value:
            raise UserError(f"{path} row {row}: passage {shown(document)} of query {shown(query)} has a second grade")
    if not grades:
        raise UserError(f"{path}: the file is empty; fetch it again")
    return dict(grades)


def read_hits(path: Path) -> Iterator[tuple[str, str, list[Hit]]]:
    """Yield ``(query id, query, candidates)`` from rank_llm's JSON; the id of a query without candidates is ""."""
    for row, value in json_records(path, Counter()):
        where = f"{path} row {row}"
        hits = value.get("hits")
        if not isinstance(hits, list) or not isinstance(value.get("query"), str):
            raise UserError(f"{where}: not an object with a text query and a list hits; fetch the file again")
        found: dict[str, Hit] = {}
        ids = set()
        for hit in hits:
            if not isinstance(hit, dict) or not isinstance(hit.get("content"), str):
                raise UserError(f"{where}: a hit is {shown(str(hit))}, without a text content; fetch the file again")
            id, document = (identifier(hit.get(key), path, row, key) for key in ("qid", "docid"))
            rank, score = (number(hit.get(key), path, row, key) for key in ("rank", "score"))
            ids.add(id)
            _add(found, Hit(document, rank, score, hit["content"]), where)
        if len(ids) > 1:
            raise UserError(f"{where}: its hits have different qids, {', '.join(map(shown, sorted(ids)[:2]))}")
        yield "".join(ids), value["query"], list(found.values())


def _with_text(collection: Collection, count: int) -> Iterator[tuple[str, str, list[Hit]]]:
    """Yield the same from a run, its topics and the passages' texts; only the texts that are needed are kept."""
    assert collection.run and collection.topics and collection.texts
    runs: dict[str, dict[str, Hit]] = defaultdict(dict)
    for row, (query, _, document, rank, score, _) in run_lines(collection.run):
        place, value = (number(text, collection.run, row, name) for name, text in (("rank", rank), ("score", score)))
        _add(runs[query], Hit(document, place, value), f"{collection.run} row {row}")
    hits = {query: best_hits(list(found.values()), count) for query, found in runs.items()}
    needed = {hit.id for found in hits.values() for hit in found}
    texts = _texts(collection.texts, needed)
    if missing := sorted(needed - texts.keys()):
        raise UserError(f"{collection.texts}: no passage {shown(missing[0])}, which is in {collection.run}")
    queries = _texts(collection.topics, hits.keys())
    for query, found in hits.items():
        yield query, queries.get(query, ""), [Hit(hit.id, hit.rank, hit.score, texts[hit.id]) for hit in found]


def _texts(path: Path, needed: Container[str]) -> dict[str, str]:
    """Return the needed texts by id. Raise UserError for an id with two texts."""
    found: dict[str, tuple[int, str]] = {}
    for row, id, text in _json_texts(path) if suffix_of(path) == ".jsonl" else _tabbed_texts(path):
        if id in needed and (before := found.setdefault(id, (row, text)))[1] != text:
            raise UserError(
                f"{path} row {row}: {shown(id)} is {shown(text)}, but {shown(before[1])} in row {before[0]}; correct or "
                "remove one"
            )
    return {id: text for id, (_, text) in found.items()}


def _tabbed_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    for row, text in text_lines(path):
        id, tab, rest = text.partition("\t")
        if not tab:
            raise UserError(
                f"{path} row {row}: {shown(text)} has no tab between id and text; correct or remove the row"
            )
        yield row, id.strip(), rest


def _json_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield BEIR's texts: a title, where there is one, precedes its text."""
    for row, record in json_records(path, Counter()):
        parts = [plain_text(record.get(key) or "", f"{path} row {row}", key) for key in ("title", "text")]
        yield row, identifier(record.get("_id"), path, row, "_id"), " ".join(filter(None, parts))


def _add(found: dict[str, Hit], hit: Hit, where: str) -> None:
    if found.setdefault(hit.id, hit) is not hit:
        raise UserError(f"{where}: passage {shown(hit.id)} occurs twice for one query; keep one of them")
