"""A residual MLP, for what needs no structure."""

from torch import Tensor, nn


class Residual(nn.Module):
    """h + MLP(norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        """(N, width) to the same shape."""
        return h + self.inner(h)


def residual_mlp(size: int, hidden: int, depth: int, outputs: int) -> nn.Sequential:
    """(N, size) to (N, outputs); norms keep it bounded far from the data."""
    blocks = [Residual(hidden) for _ in range(depth)]
    return nn.Sequential(
        nn.Linear(size, hidden), *blocks, nn.LayerNorm(hidden), nn.Linear(hidden, outputs)
    )
