"""Token-wise constrained fine-tuning: keeps the first tokens of answers close to the aligned model's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.space import Real, Whole, within

if TYPE_CHECKING:
    from torch import Tensor


class ConstrainedSft(TrainingDefense):
    """Constrain how far each answer token's probability moves, the first ones most (Qi et al., arXiv 2406.05946).

    The loss of answer token t is -2 / beta_t * log sigmoid(beta_t * delta_t), where delta_t is by how much the token's
    log-probability exceeds the aligned model's (equation 3). Its gradient is that of the cross-entropy times
    2 * sigmoid(-beta_t * delta_t): a token that has become more likely than it was is hardly trained any further, and
    the sooner, the larger beta_t. The aligned model is the trained one with its adapter switched off, which costs two
    further forward passes and no memory for weights.

    Defaults as in the authors' code. Left out: its floor of 1e-3 for that factor.
    """

    name: ClassVar[str] = "constrained_sft"

    beta: Annotated[Real, within(1e-4, 100)] = 0.1
    """Strength for all later tokens."""
    first: Annotated[Real, within(1e-4, 100)] = 0.5
    """Strength for the first token of an answer."""
    early: Annotated[Real, within(1e-4, 100)] = 2.0
    """Strength for the second to the last early token."""
    early_tokens: Annotated[Whole, within(1, 1000)] = 5
    """Number of early tokens, with the first."""

    def loss(self, loss: Any, model: Any, inputs: Mapping[str, Any], outputs: Any) -> Any:
        """Returns the constrained loss, divided by the same number of tokens as the cross-entropy."""
        import torch

        peft = getattr(model, "module", model)  # DeepSpeed's engine wraps it
        labels = inputs["labels"]
        trains = peft.training
        peft.eval()
        with torch.no_grad(), peft.disable_adapter():
            reference = peft(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        peft.train(trains)
        own, answers = token_logprobs(outputs.logits, labels), labels[:, 1:] != -100
        total = constrained(own, token_logprobs(reference, labels), answers, self.betas(answers))
        # The trainer divides the sum over answer tokens by a number that it does not pass on.
        divided_by = -(own * answers).sum().detach() / loss.detach()
        return total / divided_by

    def betas(self, answers: "Tensor") -> "Tensor":
        """Returns beta of every token.

        Args:
            answers: batch x tokens, whether a token belongs to an answer; with packing, a row has several answers.
        """
        import torch

        count = answers.cumsum(1)
        before = torch.where(answers, 0, count).cummax(1).values
        place = count - before  # 1 for the first token of each answer
        early = torch.where(place == 1, cast(float, self.first), cast(float, self.early))
        return torch.where(place <= cast(int, self.early_tokens), early, cast(float, self.beta))


def token_logprobs(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """Returns the log-probability of every next token; anything where there is no label.

    Args:
        logits: batch x tokens x vocabulary.
        labels: batch x tokens; -100 for no label.
    """
    import torch

    wanted = labels[:, 1:].clamp(min=0)
    return torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, wanted[..., None])[..., 0]


def constrained(own: "Tensor", reference: "Tensor", answers: "Tensor", betas: "Tensor") -> "Tensor":
    """Returns the sum of the constrained loss over the answer tokens; all arguments are batch x tokens."""
    from torch.nn.functional import logsigmoid

    return -(2 / betas * logsigmoid(betas * (own - reference)) * answers).sum()
