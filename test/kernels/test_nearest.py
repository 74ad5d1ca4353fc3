"""The nearest of many, against every product and every distance written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dust3r_ros.kernels import KernelError, nearest, nearest_3d

both = pytest.mark.parametrize("search", [nearest, nearest_3d], ids=["nearest", "nearest_3d"])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 700), st.integers(1, 9000), st.integers(1, 24), st.integers(0, 99))
def test_nearest_is_the_largest_product_whatever_the_chunks(count, keys_count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    # Whole numbers: products are exact in any order of summation, and ties are common.
    queries, keys = (torch.randint(-9, 10, (n, width), generator=generator).float() for n in (count, keys_count))
    assert torch.equal(nearest(queries, keys), (queries.double() @ keys.double().T).argmax(dim=1))


def test_nearest_3d_is_the_smallest_distance():
    generator = torch.Generator().manual_seed(1)
    queries, keys = torch.randn(300, 3, generator=generator), torch.randn(500, 3, generator=generator)
    assert torch.equal(nearest_3d(queries, keys), torch.cdist(queries.double(), keys.double()).argmin(dim=1))


def test_of_equal_products_the_lowest_index_is_taken_across_chunks():
    assert nearest(torch.ones(3, 4), torch.ones(9000, 4)).tolist() == [0, 0, 0]


def test_a_bias_makes_the_product_a_distance():
    """|x - y|^2 is least where x.y - |y|^2 / 2 is most."""
    generator = torch.Generator().manual_seed(3)
    queries, keys = torch.randn(200, 24, generator=generator), torch.randn(5000, 24, generator=generator)
    found = nearest(queries, keys, -0.5 * (keys**2).sum(1))
    assert torch.equal(found, torch.cdist(queries.double(), keys.double()).argmin(dim=1))
    with pytest.raises(KernelError, match=r"bias of shape \(3,\) for 5000 keys"):
        nearest(queries, keys, torch.zeros(3))


def test_half_precision_is_compared_in_full():
    keys = torch.eye(4, dtype=torch.float16)
    assert nearest(keys.flip(0), keys).tolist() == [3, 2, 1, 0]


@both
def test_no_queries_find_nothing(search):
    found = search(torch.zeros(0, 3), torch.zeros(0, 3))
    assert found.dtype == torch.int64
    assert len(found) == 0


@both
def test_what_cannot_be_searched_is_refused(search):
    with pytest.raises(KernelError, match=r"2 queries among no keys"):
        search(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(KernelError, match=r"\(2, 3\) and \(2, 4\)"):
        search(torch.zeros(2, 3), torch.zeros(2, 4))
