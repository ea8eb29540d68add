"""The leading singular directions of large matrices, by random projection."""

import torch
from torch import Tensor

OVERSAMPLING = 8
POWER_ITERATIONS = 2


@torch.no_grad()
def leading(matrix: Tensor, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the leading singular triples of a matrix (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm 4.4).

    Directions with nearly equal singular values may be mixed with each other, but together they capture as much of the
    matrix as the exact triples, up to a relative error of about (s_{k+8} / s_k)^5.

    It allocates nothing as large as the matrix, except that nearly full ranks use the exact SVD.

    Args:
        matrix: m x n, float32 or float64.
        rank: number of triples; at most min(m, n) are returned.
        seed: seed for the random projection.

    Returns:
        U (m x k), S (k, descending) and Vh (k x n).
    """
    width = rank + OVERSAMPLING
    if 2 * width >= min(matrix.shape):
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        return U[:, :rank], S[:rank], Vh[:rank]
    generator = torch.Generator().manual_seed(seed)
    test = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype).to(matrix.device)
    Q = torch.linalg.qr(matrix @ test).Q
    for _ in range(POWER_ITERATIONS):
        # Without orthogonalization after every product, rounding of the largest direction swamps the smaller ones.
        Q = torch.linalg.qr(matrix.T @ Q).Q
        Q = torch.linalg.qr(matrix @ Q).Q
    U, S, Vh = torch.linalg.svd(Q.T @ matrix, full_matrices=False)
    return (Q @ U)[:, :rank], S[:rank], Vh[:rank]


def leading_by_energy(matrix: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the fewest leading singular triples that capture a share of the matrix's energy, ||.||_F^2.

    Args:
        matrix: m x n, float32 or float64.
        share: above 0, at most 1.
        seed: seed for the random projection.
    """
    total = matrix.double().square().sum()
    rank = 2 * OVERSAMPLING
    while True:
        U, S, Vh = leading(matrix, rank, seed)
        held = S.double().square().cumsum(0) / total
        # All directions capture everything, even if rounding puts the sum below the share.
        if held[-1] >= share or len(S) == min(matrix.shape):
            count = int((held < share).sum()) + 1
            return U[:, :count], S[:count], Vh[:count]
        rank *= 2
