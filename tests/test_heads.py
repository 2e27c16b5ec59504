"""The parts that heads are made of."""

import pytest
import torch
from torch.nn import functional

from robolearn.policies.heads import attention


@pytest.mark.parametrize("shape", [(3, 2, 5, 8), (3, 1, 2, 5, 8)], ids=["heads", "groups"])
def test_attention_is_that_of_torch(shape):
    torch.manual_seed(0)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    ours, theirs = attention(q, k, v), functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    found = [torch.autograd.grad((x**2).sum(), (q, k, v)) for x in (ours, theirs)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_attention_keeps_bf16():
    q, k, v = (torch.randn(2, 2, 4, 8, dtype=torch.bfloat16) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q, k, v).dtype == torch.bfloat16
