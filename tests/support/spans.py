"""Short texts of every kind that the patterns of pre-tokenization tell apart."""

SPANS_OF_EVERY_KIND = [
    " ", "  ", "\n", "\r\n", "\n\n  ", "\t", "\u3000", "\u2003", "\x85", "\0",
    "'", "'s", "'LL", "'\u017f", "!", "!!", "\u201c",
    "a", "Ab", "é", "你", "\u0300", "😀", "7", "1234567", "\u0661", "½",
]  # fmt: skip
