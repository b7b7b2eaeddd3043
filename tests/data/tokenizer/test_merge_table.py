"""The table of merges where it is worst: full, so that a lookup passes as many buckets as a merge may."""

import ctypes

from support import SUPPORT

from hipgpt.base.compiler import host_library


def test_a_pair_without_a_merge_has_none_in_a_full_table():
    library = ctypes.CDLL(str(host_library(SUPPORT / "merge_table_probe.cpp")))
    assert library.wrong_in_a_full_table(40) == 0
