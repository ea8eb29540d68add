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
    """Keep the update where it costs least safety, and compensate the rest (Safe Delta, Lu et al., arXiv 2505.12038).

    The cost is measured on up to 128 examples of `finetune.safety_data`. The aligned model reads them once, on a GPU if
    the trial has one, else on its node's CPU in float32. This takes d_in^2 numbers for each input of the adapted
    modules: for an 8B model 2 GB with q_proj and v_proj, 33 GB with all linear modules.

    The paper ranks single weights; their rank depends only on the input that they multiply, so here all weights of an
    input are kept or reset together, and the adapter's rank stays the same. It limits the cost by an absolute number;
    here the limit is a share of the cost of the whole update, which means the same for every module and model.
    """

    name: ClassVar[str] = "safe_delta"
    needs: ClassVar[tuple[Need, ...]] = ("adapter", "moments")

    budget: Annotated[Real, within(0, 1)]
    """The share of each module's safety cost that may remain: 1 keeps the update, 0 removes it."""

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the adapter within the budget."""
        return safe_delta(*subject, self)


@by_name(SafeDelta)
def safe_delta(adapter: "Adapter", moments: "Moments", settings: SafeDelta) -> "Realigned":
    """Resets the update of the inputs that matter for safety, and compensates the remaining update (arXiv 2505.12038).

    With H = 2 E[x x^T] over a module's inputs x on safety examples, changing only the weight of input m by d costs
    d^2 / (2 [H^-1]_mm) if all others may adapt (optimal brain surgeon). Inputs are kept in the order of falling
    [H^-1]_mm, utility per cost, until their summed cost exceeds the budget. The others' weights then take the values
    that change the outputs on the safety examples least: with the kept inputs K and the rest R,

        dW_R = - dW_K H_KR H_RR^-1

    This is exact for all weights at once; the authors' code goes through blocks of inputs and compensates within those
    that follow. Only A changes.

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

    Args:
        A: r x d_in.
        B: d_out x r.
        H: the damped second moments, d_in x d_in, symmetric and positive definite.
        budget: the share of the cost that may remain.
    """
    import torch

    freedom = torch.cholesky_inverse(torch.linalg.cholesky(H)).diagonal()
    cost = (A * (B.T @ B @ A)).sum(0) / (2 * freedom)
    order = freedom.argsort(descending=True, stable=True)
    kept = torch.zeros_like(freedom, dtype=torch.bool)
    kept[order] = cost[order].cumsum(0) <= budget * cost.sum()
    changed = torch.zeros_like(A)
    changed[:, kept] = A[:, kept]
    if kept.any() and not kept.all():
        factor = torch.linalg.cholesky(H[~kept][:, ~kept])
        changed[:, ~kept] = -torch.cholesky_solve(H[~kept][:, kept] @ A[:, kept].T, factor).T
    return changed
