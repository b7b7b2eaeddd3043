"""The split of an f32 into three bf16 (kernels/cpu/gemm/pack_bf16x3.h), over all significands."""

import numpy as np
from support.rounding import F32_ROUNDOFF


def nearest_bf16(x: np.ndarray) -> np.ndarray:
    return ((x.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def test_the_split_is_exact_and_the_products_left_out_are_less_than_a_rounding():
    x = np.arange(0x3F800000, 0x40000000, dtype=np.uint32).view(np.float32)  # from 1 to 2
    first = nearest_bf16(x)
    second = nearest_bf16(x - first)
    third = x - first - second
    np.testing.assert_array_equal(nearest_bf16(third), third)
    # of a product, the second times the third, the third times the second and the third times the third are left out
    largest_second, largest_third = (float(np.abs(part / x.astype(np.float64)).max()) for part in (second, third))
    assert 2 * largest_second * largest_third + largest_third**2 < F32_ROUNDOFF
    # the other six exceed the product's magnitude by what rounding.split_matmul says
    assert (1 + 2 * largest_second + 2 * largest_third) ** 2 < 1 + 2**-6 + 2**-12
