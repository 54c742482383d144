"""Files with faults at random places, for tests of readers."""

import gzip

PIECES = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\n\n\n", b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]", b":",
    b"NaN", b"Infinity", b"-1", b"1e999", b"1e308", b"9" * 400, b"9" * 5000, b"null", b"true", b"\\ud83d", b"\\u0000",
    b"\xed\xa0\x80", "\u2028".encode(), b"{}", b"[]", b'{"a":' * 2000, b"[" * 5000, b" " * 5000, b"x" * 5000, b"sep=;\n", b"#",
    b"<script>", b"\x1f\x8b", b"PAR1", b"::", b"|", b"(", b"__import__('os')",
]  # fmt: skip


def spoilt(rng, content):
    """The content with some bytes cut out, put in, doubled or exchanged, or in another encoding."""
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        start = rng.choice([0, 0, rng.randrange(len(content) + 1), content.find(b"\n") + 1])
        end = min(len(content), start + rng.choice([0, 1, 1, 2, 10, len(content)]))
        piece = rng.choice([*PIECES, bytes(rng.randrange(256) for _ in range(3)), content[start:end] * 2])
        content = content[:start] + piece + content[end:]
    change = rng.randrange(12)
    if change == 0:
        return gzip.compress(content)[: rng.choice([None, -1, -8, 20])]
    if change == 1:
        return content.decode("utf-8", "replace").encode(
            rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig"]), "replace"
        )
    return content
