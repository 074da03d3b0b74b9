"""What a search records of its alphas: numbers for the history, pictures, and whether all ranks hold the same."""

import torch

from genotypes import Genotype
from models.search_network import SearchNetwork
from plots import cells, charts
from training import distributed
from training.run_folder import RunFolder


@torch.no_grad()
def describe_alphas(network: SearchNetwork) -> dict[str, float]:
    """By kind of cell: the mean entropy of its edges' weights (in nats), and the shares of skip and none."""
    record = {}
    for kind, nodes in network.op_weights().items():
        p = torch.cat(nodes)
        _, ops = network.space.of(kind)
        record[f"alpha_entropy/{kind}"] = float(-(p * p.log()).sum(dim=1).mean())
        for op in ("skip_connect", "none"):
            if op in ops:
                record[f"alpha_share/{kind}_{op}"] = float(p[:, ops.index(op)].mean())
    return record


@torch.no_grad()
def draw_architecture(folder: RunFolder, network: SearchNetwork, genotype: Genotype, epoch: int) -> None:
    """Draw the alphas and the cells of a genotype into plots/ and TensorBoard."""
    for kind, nodes in network.op_weights().items():
        _, ops = network.space.of(kind)
        picture = folder.plots / f"alphas_{kind}.png"
        weights = [p.cpu().numpy() for p in nodes]
        charts.draw_alphas(weights, ops, picture, f"{cells.TITLES[kind]}, epoch {epoch}")
        folder.add_image(f"alphas/{kind}", picture, epoch)
    for picture in cells.draw_genotype(genotype, folder.plots):
        folder.add_image(f"cells/{picture.stem}", picture, epoch)


@torch.no_grad()
def require_equal_alphas(network: SearchNetwork, epoch: int) -> None:
    """Stop if the alphas or the genotypes of the ranks are not identical."""
    alphas = b"".join(alpha.cpu().numpy().tobytes() for alpha in network.architecture_parameters())
    distributed.require_equal(
        alphas + str(network.genotype()).encode(),
        f"the alphas of the processes differ after epoch {epoch}: run all of them on equal machines with equal "
        "versions; --resume continues from the last checkpoint",
    )
