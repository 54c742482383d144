"""Chat messages as token ids in which texts are text: no passage or title can end a turn or forge another.

    encoder = ChatEncoder(tokenizer)
    ids = encoder.encode(template.messages(state))

A tokenizer turns ``<|im_end|>`` into the token that ends a turn wherever it occurs, in a document as well. Here only the chat
template's own markers become such tokens. A marker inside a text is cut after its first character and the pieces are encoded
apart, so that decoding still gives the text. Where no text holds a marker, the ids are those of ``apply_chat_template``.

Markers are the tokens that the tokenizer flags as special, and its other added tokens in angle or square brackets, except the
labels and tags that prompts and answers are written with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, pairwise, product
from typing import Any

from iranker_verl.errors import UserError

Messages = Sequence[Mapping[str, str]]

_BRACKETED = re.compile(r"[<\[]\S+[>\]]")
_ANSWERS = re.compile(r"\[[A-Z]+\]|</?(think|answer)>")  # what prompts and answers are written with
_SLOT = re.compile("\ue000([0-9]+)\ue001")  # stands for a message's content where the template's own text is looked for


class ChatEncoder:
    """A tokenizer with its chat template.

    Args:
        tokenizer: Any of transformers' tokenizers, fast or slow, with a chat template.
        options: Arguments of the chat template, such as ``enable_thinking``.
    """

    def __init__(self, tokenizer: Any, **options: Any) -> None:
        self._tokenizer, self._options = tokenizer, options
        self._own: dict[tuple[str, ...], list[int]] = {}

    def text(self, messages: Messages) -> str:
        """Return the chat template's text for ``messages``, up to where the assistant's answer begins.

        Where the last message is the assistant's own, the answer has begun with it, and the text ends there.
        """
        begun = messages[-1]["role"] == "assistant"
        return str(
            self._tokenizer.apply_chat_template(
                [dict(m) for m in messages],
                add_generation_prompt=not begun,
                continue_final_message=begun,
                tokenize=False,
                **self._options,
            )
        )

    def encode(self, messages: Messages) -> list[int]:
        """Return the token ids of :meth:`text`, in which contents make no marker.

        Raise UserError for a content that holds a marker which cannot be told from the template's own.
        """
        return self.render(messages)[1]

    def render(self, messages: Messages) -> tuple[str, list[int]]:
        """Return :meth:`text` and :meth:`encode` of ``messages``; the chat template is filled in once."""
        text = self.text(messages)
        [ids] = self.ids([text])
        return text, ids if self.is_plain(messages, ids) else self._apart(messages, text)

    def is_plain(self, messages: Messages, ids: Iterable[int]) -> bool:
        """Return whether ``ids``, of these messages, hold the template's own markers and no others."""
        if self._unknown and any(self._unknown in m["content"] for m in messages):
            return False
        return self._markers_in(ids) == self._own_markers(messages)

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text by itself, without a template and without markers. UserError as in :meth:`encode`."""
        pieces = [self._pieces(text) for text in texts]
        encoded = iter(self.ids(list(chain.from_iterable(pieces))))
        found = [list(chain.from_iterable(next(encoded) for _ in row)) for row in pieces]
        for text, ids in zip(texts, found, strict=True):
            if self._markers_in(ids):
                raise self._refused(ids, text)
        return found

    @cached_property
    def _markers(self) -> dict[str, int]:
        tokenizer = self._tokenizer
        found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        for number, token in tokenizer.added_tokens_decoder.items():
            if token.special or (_BRACKETED.fullmatch(token.content) and not _ANSWERS.fullmatch(token.content)):
                found[token.content] = number
        return found

    @cached_property
    def _unknown(self) -> str | None:
        """The token of what the vocabulary lacks, where it is for that alone: ordinary text makes it too."""
        tokenizer = self._tokenizer
        others = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
        return None if tokenizer.unk_token in others else tokenizer.unk_token

    @cached_property
    def _ids_of_markers(self) -> frozenset[int]:
        return frozenset(number for token, number in self._markers.items() if token != self._unknown)

    @cached_property
    def _pattern(self) -> str:
        return "|".join(re.escape(token) for token in sorted(self._markers, key=len, reverse=True))

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text as the tokenizer makes them, markers included."""
        return self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def _markers_in(self, ids: Iterable[int]) -> list[int]:
        markers = self._ids_of_markers
        return [number for number in ids if number in markers]

    def _own_markers(self, messages: Messages) -> list[int]:
        roles = tuple(m["role"] for m in messages)
        if roles not in self._own:
            [ids] = self.ids([self.text([{**m, "content": "x"} for m in messages])])
            self._own[roles] = self._markers_in(ids)
        return self._own[roles]

    def _pieces(self, text: str) -> list[str]:
        """Cut ``text`` after the first character of every marker."""
        if not self._pattern:
            return [text]
        cuts = [0, *(found.start() + 1 for found in re.finditer(f"(?={self._pattern})", text)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts) if start < end]

    def _apart(self, messages: Messages, text: str) -> list[int]:
        """Encode the template's own markers as such, and all between them as text."""
        slots = [{**m, "content": f"\ue000{index}\ue001"} for index, m in enumerate(messages)]
        parts = re.split(f"({self._pattern})", self.text(slots))
        contents = [m["content"] for m in messages]
        # some templates strip some messages
        for written in product(*(dict.fromkeys((content, content.strip())) for content in contents)):
            filled = [_SLOT.sub(lambda slot, written=written: written[int(slot[1])], part) for part in parts]
            if "".join(filled) == text:
                break
        else:
            raise UserError(f"{_start(text)}: it holds a special token, and the chat template changes texts; remove it")
        between = self.encode_texts(filled[::2])
        ids = list(between[0])
        for marker, more in zip(filled[1::2], between[1:], strict=True):
            ids += [self._markers[marker], *more]
        return ids

    def _refused(self, ids: Iterable[int], text: str) -> UserError:
        token = self._tokenizer.convert_ids_to_tokens(self._markers_in(ids)[0])
        return UserError(
            f"{_start(text)}: it makes the special token {token}, which cannot be told from a real one; remove it"
        )


def _start(text: str) -> str:
    return f"the text that begins {text.strip()[:60]!r}"
