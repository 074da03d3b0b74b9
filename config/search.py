"""The flags of search.py: a run's, and those of the space, the strategy, the memory and the optimisers."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from config.kinds import Fraction
from config.runs import RunFlags
from genotypes import CNN_OPS, RNN_OPS, RNN_SCOPES


def ops_of(known: tuple[str, ...], scopes: Mapping[str, tuple[str, ...]]) -> Any:
    """The type of a list of distinct ops out of `known`, or the name of a scope; put into the order of `known`."""

    def from_scope(value: Any) -> Any:
        words = [value] if isinstance(value, str) else value
        return scopes.get(str(words[0]), words) if isinstance(words, list | tuple) and len(words) == 1 else words

    def in_order(ops: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [op for op in ops if op not in known]
        if unknown:
            raise ValueError(f"unknown op {unknown[0]!r}; known are {', '.join(known)}")
        if set(ops) <= {"none"}:
            raise ValueError("a search needs at least one op besides none")
        return tuple(op for op in known if op in ops)

    return Annotated[tuple[str, ...], BeforeValidator(from_scope), AfterValidator(in_order)]


class SearchConfig(RunFlags):
    """Search the cells of a joint CNN + LSTM/RNN network."""

    strategy: Literal["darts", "random"] = "darts"
    """darts: by gradient descent on the alphas; random: the seed draws from the same space, and nothing is trained."""
    cnn_nodes: PositiveInt = 4
    """Nodes of a CNN cell."""
    rnn_nodes: PositiveInt = 4
    """Nodes of a SeqNN cell."""
    cnn_ops: ops_of(CNN_OPS, {"all": CNN_OPS}) = CNN_OPS
    """Candidate ops of the CNN cells."""
    rnn_ops: ops_of(RNN_OPS, RNN_SCOPES) = RNN_OPS
    """Candidate ops of the SeqNN cells: a list, or one of all, lstm, rnn, lstm_att, rnn_att."""
    order: Literal["first", "second"] = "second"
    """Order of the alpha gradient: second looks one weight step ahead, first costs about 2.5 times less."""
    batch_size: Annotated[int, Field(ge=2)] | Literal["auto"] = 64
    """Utterances a step, over all processes; auto: as many as fit into the free memory, a power of two."""
    recompute: Literal["auto", "none", "ops", "cells"] = "auto"
    """What backward computes again rather than store: nothing; the ops, for a third more time in the SeqNN and little
    in the CNN; or cells, the least memory; auto: the first of these that fits."""
    plan: bool = False
    """Print how much memory the choices would take, and stop."""
    nested_depth: bool = False
    """Let lstm_k, rnn_k and *_att_k be the outputs after k layers of one stack each: faster, but another relaxation."""
    cuda_graphs: bool = False
    """On one CUDA GPU: record the step once an epoch and replay it, so that no kernel waits for Python to launch it."""
    train_portion: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the training rows that train the weights; the rest trains the alphas."""
    w_lr: PositiveFloat = 0.025
    """Learning rate of the weights at the start of its cosine."""
    w_lr_min: NonNegativeFloat = 0.001
    """Learning rate of the weights at the end of its cosine."""
    w_momentum: Fraction = 0.9
    """Momentum of the weights' SGD."""
    w_weight_decay: NonNegativeFloat = 3e-4
    """Weight decay of the weights."""
    w_grad_clip: PositiveFloat = 5.0
    """Largest norm of the weights' gradient."""
    alpha_lr: PositiveFloat = 3e-4
    """Learning rate of the alphas' Adam."""
    alpha_weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of the alphas."""
