"""Queries with passages, one of them selected, in MS MARCO v1.1's Parquet schema."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.world import words
from data_prep.world.routing import new, question

SIZES = (5, 7, 9)
# How often a selected passage repeats a word of its query, and how often a passage holds a word of another topic.
REPEATS = 0.15
OFF_TOPIC = 0.1
SENTENCES = (
    "The {n} {a} needs a {b}.",
    "A {a} is like the {n} {b}.",
    "Most {a} and {n} {b} are here.",
    "First the {n} {a}, then the {b}.",
    "No {a} without a {n} {b}.",
    "With a {n} {a} you get {b}.",
    "In the {a} there is a {n} {b}.",
    "Some {n} {a} or {b} will do.",
    "The {a} of a {n} {b} is best.",
    "For every {a} one {n} {b}.",
)

SCHEMA = pa.schema(
    [
        ("answers", pa.list_(pa.string())),
        (
            "passages",
            pa.struct(
                [
                    ("is_selected", pa.list_(pa.int32())),
                    ("passage_text", pa.list_(pa.string())),
                    ("url", pa.list_(pa.string())),
                ]
            ),
        ),
        ("query", pa.string()),
        ("query_id", pa.int32()),
        ("query_type", pa.string()),
        ("wellFormedAnswers", pa.list_(pa.string())),
    ]
)


def passage(random: Random, topic: str, echo: str | None = None) -> str:
    """Return a sentence of two telling words; ``echo`` takes the place of one of them, as a stray word now and then does."""
    told: list[str] = random.sample(words.TELL[topic], 2)
    if random.random() < OFF_TOPIC:
        told[random.randrange(2)] = random.choice(words.TELL[random.choice(words.TOPICS)])
    if echo is not None:
        told[random.randrange(2)] = echo
    a, b = told
    return random.choice(SENTENCES).format(a=a, b=b, n=random.choice(words.NEUTRAL))


def _row(random: Random, number: int, size: int, taken: set[str]) -> dict[str, Any]:
    topic = random.choice(words.TOPICS)
    query = new(taken, lambda: question(random, topic))
    asked = [w for w in words.ASK[topic] if w in query.rstrip("?").split()]
    echo = random.choice(asked) if random.random() < REPEATS else None
    texts = [new(taken, lambda: passage(random, topic, echo))]
    for _ in range(size - 1):
        other = random.choice([t for t in words.TOPICS if t != topic])
        texts.append(new({*taken, *texts}, lambda other=other: passage(random, other)))  # type: ignore[misc]
    order = random.sample(range(size), size)
    return {
        "answers": [texts[0]],
        "passages": {
            "is_selected": [int(i == 0) for i in order],
            "passage_text": [texts[i] for i in order],
            "url": [f"https://example.org/{number}/{i}" for i in range(size)],
        },
        "query": query,
        "query_id": number,
        "query_type": "description",
        "wellFormedAnswers": [],
    }


def write_msmarco(folder: Path, random: Random, train: int, test: int) -> None:
    """Write the two files of the Hugging Face dataset, with ``train`` and ``test`` queries of each of three sizes.

    No query and no passage of the test file occurs in the other: it is drawn first, and the training file has to avoid it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    number = 0
    for split, count in (("test", test), ("train", train)):
        sizes = [size for size in SIZES for _ in range(count)]
        random.shuffle(sizes)
        rows = [_row(random, number + i, size, taken) for i, size in enumerate(sizes)]
        number += len(rows)
        if split == "test":
            taken.update(text for row in rows for text in (row["query"], *row["passages"]["passage_text"]))
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / f"{split}-00000-of-00001.parquet")
