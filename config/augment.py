"""The flags of augment.py: a run's, and those of the network, its training and its test."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from config.kinds import Fraction
from config.runs import RunFlags


class AugmentConfig(RunFlags):
    """Train the derived network, or one designed by hand, and test it once on unseen speakers."""

    model: Literal["searched", "cnn", "rnn", "lstm", "cnn_lstm", "cnn_lstm_att"] = "searched"
    """What is trained: the network of a genotype, or one designed by hand, to which --layers, --init_channels,
    --rnn_layers, --rnn_channels, --dropout, --aux_weight and --drop_path_prob mean nothing."""
    genotype: str | None = None
    """A genotype: a file, a string, or a built-in name; default: that of runs/NAME/search."""
    protocol: Literal["held_out", "paper"] = "held_out"
    """held_out: the epoch is picked on validation speakers; paper: on the test fold itself, as published."""
    batch_size: Annotated[int, Field(ge=2)] = 96
    """Utterances a step, over all processes."""
    epochs: PositiveInt = 600
    """Passes over the training rows."""
    layers: PositiveInt = 20
    """CNN cells; those at 1/3 and 2/3 of the depth reduce."""
    init_channels: PositiveInt = 36
    """Channels of the first CNN cell; each reduction doubles them."""
    lr: PositiveFloat = 0.025
    """Learning rate at the start of its cosine, which ends at 0."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 3e-4
    """Weight decay."""
    grad_clip: PositiveFloat = 5.0
    """Largest norm of the gradient."""
    aux_weight: NonNegativeFloat = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    balance: Literal["none", "weights", "sampling"] = "weights"
    """How classes of different size come to count the same: weights of their losses, or as many rows of each drawn."""
    mixup: NonNegativeFloat = 0.0
    """Blend each training input with another; the share is drawn from Beta(MIXUP, MIXUP), 0.2 for example; 0: none."""
    cutout_length: NonNegativeInt = 16
    """Side of the square of each training input that is blanked."""
    freq_mask: NonNegativeInt = 0
    """SpecAugment: blank a random band of fewer than so many coefficients of each training input; 0: none."""
    time_mask: NonNegativeInt = 0
    """SpecAugment: blank a random stretch of fewer than so many frames of each training input; 0: none."""
    drop_path_prob: Fraction = 0.2
    """Probability of dropping an op's output, reached by a linear ramp over the epochs."""

    @model_validator(mode="after")
    def _genotype_of_a_search(self) -> Self:
        if self.genotype is not None and self.model != "searched":
            raise ValueError(f"--genotype is for --model searched; {self.model} is designed by hand and takes none")
        return self
