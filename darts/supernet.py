"""The search space and the supernets that the flags of search.py describe."""

from config import SearchConfig
from models.joint_network import Size
from models.one_shot_network import OneShotNetwork
from models.search_network import SearchNetwork
from models.search_space import SearchSpace


def search_space(config: SearchConfig) -> SearchSpace:
    """The search space; without SeqNN cells, their cell type has no nodes."""
    rnn_nodes = config.rnn_nodes if config.rnn_layers else 0
    return SearchSpace(config.cnn_nodes, rnn_nodes, config.cnn_ops, config.rnn_ops)


def make_supernet(config: SearchConfig, classes: int) -> SearchNetwork:
    """A supernet with random weights and alphas."""
    return SearchNetwork(
        search_space(config),
        Size.of(config),
        classes,
        config.dropout,
        config.recompute,
        config.nested_depth,
        fused=config.fused == "auto",
        op_norm=config.op_norm,
        relaxation=config.relaxation,
    )


def make_one_shot(config: SearchConfig, classes: int) -> OneShotNetwork:
    """A one-shot supernet with random weights."""
    return OneShotNetwork(
        search_space(config), Size.of(config), classes, config.dropout, config.fused == "auto"
    )
