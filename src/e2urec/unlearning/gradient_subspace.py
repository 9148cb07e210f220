"""An adapter whose A spans the directions in which a loss changes most.

With G the gradient of the loss with respect to a weight, (out, in), and s = alpha / rank, the
gradient with respect to B at B = 0 is

    ∂loss/∂B = s·G·Aᵀ

An adapter with a random A of rank r sees no more of G than a random subspace holds, about r/in of
‖G‖². Of all A with orthonormal rows, G's leading right singular vectors hold most of it,
‖G·Aᵀ‖² = σ₁² + … + σ_r² (Eckart and Young 1936). LoRA-GA (Wang et al. 2024, arXiv 2407.05000) takes
A from them too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..core.seeding import derive
from ..models.adapter_algebra import adapted_weights
from ..models.batches import Batch
from ..models.devices import seeded
from ..models.quantisation import refuse_quantised
from ..models.recommender import Recommender
from ..models.sharing import own_share, sum_over_processes
from ..models.stored_weights import widened
from .losses import cross_entropy

# Halko, Martinsson and Tropp (2011, section 4.2) advise 5 to 10 more directions than are asked for.
OVERSAMPLING = 8
"""Directions that the randomised decomposition follows beyond those that are asked for."""

# Every iteration squares how far the singular values lie apart. The values of a gradient fall fast,
# and four leave an angle below what float32 can tell, unless two of them are equal.
ITERATIONS = 4
"""Iterations of the randomised decomposition."""


def summed_loss(model: Recommender, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the right answers over the whole vocabulary, summed over the batch."""
    z = model.logits(batch)
    tokens = model.verbaliser.tokens(batch.labels)
    mean_loss = cross_entropy(z, tokens)
    # The sum over rows, so that batches of unequal size add up to the gradient on the whole set.
    return mean_loss * len(batch.index)


def leading_directions(matrix: torch.Tensor, rank: int, *, seed: int) -> torch.Tensor:
    """The right singular vectors of the largest singular values.

    They come from a randomised decomposition (Halko, Martinsson and Tropp 2011, algorithm 4.4),
    which costs a few products of the matrix with some `rank` vectors.

    Args:
        matrix: (out, in).
        rank: how many.
        seed: of the decomposition. Another seed gives the same directions, up to their signs.

    Returns:
        (rank, in), orthonormal rows, the leading one first. Rows that a matrix with fewer rows or
        columns cannot fill are zero.
    """
    most = min(matrix.shape)
    count = min(rank, most)
    sample_count = min(rank + OVERSAMPLING, most)
    # PyTorch draws from the global random stream, which is the caller's.
    with seeded(seed, matrix.device):
        _, _, vectors = torch.svd_lowrank(matrix.float(), q=sample_count, niter=ITERATIONS)
    directions = vectors[:, :count].T
    missing = rank - count
    return F.pad(directions, (0, 0, 0, missing))


def aim_at_gradient(
    model: Recommender,
    name: str,
    batches: Sequence[Batch],
    *,
    seed: int,
    signs: Sequence[float] | None = None,
) -> None:
    """Give adapter `name` the leading directions of each weight's gradient as its A.

    The loss is the cross-entropy of the right answers, its signed sum over the batches. Beside the
    model, one gradient of all weights that the adapter updates is in memory; these are float32
    meanwhile.

    Args:
        model: with the adapter attached, its B still zero, inside `using`.
        name: of the adapter.
        batches: rows of which the gradient is taken.
        seed: of the decompositions.
        signs: of each batch; −1 takes its gradient off. None: all are added.
    """
    if signs is None:
        signs = [1.0] * len(batches)
    refuse_quantised(model.lm, "subspace=gradient")
    targets = adapted_weights(model.lm, name)
    try:
        with widened(target.weight for target in targets):
            for target in targets:
                target.weight.requires_grad_(True)
            for batch, sign in own_share(list(zip(batches, signs, strict=True))):
                # Adds to the gradients in place, where `torch.autograd.grad` would hold two.
                torch.autograd.backward(sign * summed_loss(model, batch))
            for number, target in enumerate(targets):
                gradient = target.weight.grad
                # Few batches leave a process without any.
                if gradient is None:
                    gradient = torch.zeros_like(target.weight)
                gradient = sum_over_processes(gradient)
                if target.transposed:
                    gradient = gradient.T
                rank = len(target.down)
                layer_seed = derive(seed, number)
                directions = leading_directions(gradient, rank, seed=layer_seed)
                with torch.no_grad():
                    target.down.copy_(directions)
    finally:
        # After an interrupt, too, the weights are left as they were: frozen and without a gradient.
        for target in targets:
            target.weight.grad = None
            target.weight.requires_grad_(False)
