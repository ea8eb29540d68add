"""Safe Delta: keeps the part of the update that costs little safety, and compensates what it costs."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from safecomm.defenses.defense import Need, Realignment, by_name
from safecomm.defenses.space import Real, within

if TYPE_CHECKING:
    from torch import Tensor

    from safecomm.defenses.adapter import Adapter, Factors
    from safecomm.defenses.moments import Moments
    from safecomm.defenses.realigned import Realigned


class SafeDelta(Realignment):
    """Keep the part of the update that costs little safety (Safe Delta, Lu et al., arXiv 2505.12038).

    What is kept is also compensated: all other weights take the values with which the outputs on safety examples change
    least. The examples are up to 128 of `finetune.safety_data`. The aligned model reads them once, in a sweep on the
    CPU of a trial's node, in float32. Beside the model this takes d_in^2 numbers for each input of the adapted modules:
    for an 8B model 2 GB with q_proj and v_proj, 33 GB with all linear modules.

    The paper ranks single weights; their rank depends only on the input that they multiply, so here all weights of an
    input are kept or reset together, and the adapter's rank stays the same. It limits a cost that ignores how weights
    interact, by an absolute number; here the limit is a share of the exact cost, the mean square of the change of the
    module's outputs.
    """

    name: ClassVar[str] = "safe_delta"
    needs: ClassVar[tuple[Need, ...]] = ("adapter", "moments")

    budget: Annotated[Real, within(0, 1)]
    """The share of the cost of each module's update that may remain: 1 keeps the update, 0 removes it."""

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the adapter within the budget."""
        return safe_delta(*subject, self)


@by_name(SafeDelta)
def safe_delta(adapter: "Adapter", moments: "Moments", settings: SafeDelta) -> "Realigned":
    """Keeps the update of the inputs that matter least for safety, and compensates it (arXiv 2505.12038).

    With H = 2 E[x x^T] over a module's inputs x on safety examples, an update D of its weights costs
    trace(D H D^T) / 2: the mean square of the change of its outputs. Inputs are kept in the order of falling
    [H^-1]_mm, the paper's ratio of utility to cost, while the cost is within the budget. The weights of the other
    inputs R take the values that cost least, given those of the kept ones K:

        D_R = - D_K H_KR H_RR^-1

    This is the optimum for all weights at once; the authors' code goes through blocks of inputs and compensates within
    those that follow. Only A changes.

    Args:
        adapter: the fine-tuned adapter.
        moments: the second moments of the aligned model's inputs on safety examples.
        settings: the settings, as an object or as keyword arguments.

    Raises:
        ModelError: if the moments are of another model.
        DefenseError: if the settings are invalid.
    """
    import torch

    from safecomm.defenses.realigned import Realigned
    from safecomm.defenses.threads import in_parallel

    budget = cast(float, settings.budget)

    def within_budget(name: str) -> "Factors":
        factors = adapter.modules[name]
        A = compensated(factors.A.double(), factors.B.double(), moments.of(name, factors.shape[1]), budget)
        return factors._replace(A=A.to(torch.promote_types(factors.A.dtype, torch.float32)))

    with torch.no_grad():
        names = [] if budget == 1 else list(adapter.modules)
        changed = dict(zip(names, in_parallel(within_budget, names), strict=True))
    safer = replace(adapter, modules={**adapter.modules, **changed})
    inputs = {"finetuned": adapter.digest(), "moments": moments.source}
    return Realigned(safer, settings.name, settings.constants(), names, inputs)


def compensated(A: "Tensor", B: "Tensor", H: "Tensor", budget: float) -> "Tensor":
    """Returns the factor A of the update within the budget.

    With G = H^-1 in the order of the inputs and G = L L^T, the least cost of keeping the first k inputs is
    tr(D_K G_KK^-1 D_K^T) / 2, which is the sum of the first k rows' squares of L^-1 D^T: one solution gives the cost of
    every k. The compensated update is the product of the same rows and L's first k columns.

    Args:
        A: r x d_in.
        B: d_out x r.
        H: the damped second moments, d_in x d_in, symmetric and positive definite.
        budget: the share of the cost that may remain.
    """
    import torch

    G = torch.cholesky_inverse(torch.linalg.cholesky(H))
    order = G.diagonal().argsort(descending=True, stable=True)
    L = torch.linalg.cholesky(G[order][:, order])
    Z = torch.linalg.solve_triangular(L, A[:, order].T, upper=False)
    cost = ((Z @ (B.T @ B)) * Z).sum(1).cumsum(0)
    kept = int((cost <= budget * cost[-1]).sum())
    changed = torch.empty_like(A)
    changed[:, order] = (L[:, :kept] @ Z[:kept]).T
    changed[:, order[:kept]] = A[:, order[:kept]]  # which the product is, up to rounding
    return changed
