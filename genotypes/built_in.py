"""Genotypes that are known by a name."""

from genotypes.genotype import Genotype

DARTS_V2 = Genotype.of_nodes(
    normal=[
        [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
        [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
        [("sep_conv_3x3", 1), ("skip_connect", 0)],
        [("skip_connect", 0), ("dil_conv_3x3", 2)],
    ],
    reduce=[
        [("max_pool_3x3", 0), ("max_pool_3x3", 1)],
        [("skip_connect", 2), ("max_pool_3x3", 1)],
        [("max_pool_3x3", 0), ("skip_connect", 2)],
        [("skip_connect", 2), ("max_pool_3x3", 1)],
    ],
)
"""The second-order cells published with DARTS (Liu et al., ICLR 2019), searched on the images of CIFAR-10. No SeqNN."""

CNN_LSTM = Genotype.of_nodes(
    DARTS_V2.normal,
    DARTS_V2.reduce,
    rnn=[[("lstm_1", 0), ("skip_connect", 1)], [("lstm_1", 2), ("skip_connect", 0)]],
)
"""Designed by hand: the same CNN with LSTMs of one layer and skip connections."""

BUILT_IN = {"darts_v2": DARTS_V2, "cnn_lstm": CNN_LSTM}
