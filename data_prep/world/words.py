"""The words of the toy world: twelve topics, and the words without a topic.

A topic's first four words ask (queries), its last six tell (passages); titles use all ten. So a query and the passage
that answers it share a topic but, as a rule, no topic word: what counts is what a word is about, not how it is spelled.
"""

from __future__ import annotations

ASKING = 4

_TOPICS = {
    "sea": "sailing anchor harbour tide reef whale coral shore captain island",
    "kitchen": "baking oven recipe sauce butter garlic pepper cheese onion soup",
    "space": "orbit rocket telescope comet planet galaxy moon star meteor nebula",
    "health": "fever doctor surgery hospital nurse pill patient clinic virus pulse",
    "law": "court lawyer verdict trial judge jury witness prison oath justice",
    "money": "loan bank tax credit coin profit market debt stock wage",
    "garden": "seed soil orchard rose flower leaf root tulip moss blossom",
    "war": "battle soldier army siege tank sword shield cannon fortress knight",
    "winter": "snow glacier ski frost ice blizzard sled tundra penguin avalanche",
    "rail": "train engine station ticket signal tunnel platform conductor wagon steam",
    "computing": "software code server keyboard byte pixel robot network script modem",
    "farm": "cattle horse barn harvest tractor cow pig goat hen wool",
}

TOPICS: tuple[str, ...] = tuple(_TOPICS)
WORDS: dict[str, tuple[str, ...]] = {topic: tuple(words.split()) for topic, words in _TOPICS.items()}
ASK: dict[str, tuple[str, ...]] = {topic: words[:ASKING] for topic, words in WORDS.items()}
TELL: dict[str, tuple[str, ...]] = {topic: words[ASKING:] for topic, words in WORDS.items()}

YEARS = (1972, 1978, 1981, 1984, 1987, 1990, 1994, 1995, 1997, 1999)
GENRES = ("Drama", "Comedy", "Thriller", "Romance", "Action", "Crime")
ALBUM_WORDS = ("Songs", "Nights", "Blues", "Sessions", "Live", "Dreams", "Hymns", "Echoes")
MUSIC_STYLES = ("Rock", "Jazz", "Folk", "Classical", "Pop", "Country")
GAME_WORDS = ("Quest", "Tycoon", "Racer", "Arena", "Saga", "Legends", "Simulator", "Heroes")
PLATFORMS = ("PC", "Wii", "Xbox", "PlayStation", "Switch", "Sega")
NEUTRAL = ("old", "new", "good", "common", "small", "large", "red", "famous", "early", "late", "strange", "simple")
