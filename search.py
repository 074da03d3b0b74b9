"""Search: train a supernet of mixed CNN and LSTM/RNN operations, and derive the genotype of the best cells.

python search.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/search/genotype.json
"""

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import visualize
from architect import Architect, Unrolled
from config import SearchConfig, parse
from data.folds import halves
from devices import mean_gradient
from experiment import begin
from genotypes import Genotype
from metrics import scores
from models.joint_network import Size
from models.search_network import SearchNetwork, SearchSpace
from runs import RunFolder, log
from training import Metrics, cross_entropy, fit, logits_of, weight_step
from utils import run_command


def run(config: SearchConfig) -> Genotype:
    """Search on the training speakers of a fold; the validation and test speakers are not touched."""
    experiment = begin(config)
    run_folder = RunFolder("search", config, experiment.fabric.is_global_zero)
    store, device = experiment.store, experiment.device
    weight_rows, alpha_rows = halves(experiment.fold.train, store.labels, config.train_portion, config.seed)
    features, _ = experiment.features(experiment.fold.train)
    weight_batches = experiment.batches(features, weight_rows)
    alpha_batches = experiment.batches(features, alpha_rows, stream=1)

    network = make_network(config, len(store.classes)).to(device)
    weights = list(network.weights().values())
    weight_optimizer = torch.optim.SGD(
        weights, config.w_lr, momentum=config.w_momentum, weight_decay=config.w_weight_decay
    )
    alpha_optimizer = torch.optim.Adam(
        network.architecture_parameters(), config.alpha_lr, betas=(0.5, 0.999), weight_decay=config.alpha_weight_decay
    )
    scheduler = CosineAnnealingLR(weight_optimizer, config.epochs, eta_min=config.w_lr_min)
    gradient = mean_gradient(experiment.fabric)
    architect = Architect(network, F.cross_entropy, gradient)

    def step(i: int) -> Metrics:
        """One step of the alphas on the alpha half, then one of the weights on theirs."""
        train, val = weight_batches[i], alpha_batches[i]
        if config.order == "second":
            grads = architect.second_order(train, val, unrolled(network, weight_optimizer))
        else:
            grads = architect.first_order(val)
        for alpha, grad in zip(network.architecture_parameters(), grads, strict=True):
            alpha.grad = grad
        alpha_optimizer.step()
        return weight_step(network, weight_optimizer, train, F.cross_entropy, gradient, config.w_grad_clip)

    def after_epoch(epoch: int) -> dict:
        """Scores on the alpha half, the state of the architecture, and the present genotype."""
        logits, labels = logits_of(network, features.in_order(alpha_rows, config.batch_size)), store.labels[alpha_rows]
        record = {
            "valid/loss": cross_entropy(logits, labels),
            "valid/ua": scores(labels, logits.argmax(dim=1).numpy())["ua"],
            "lr/weights": scheduler.get_last_lr()[0],
            "lr/alpha": config.alpha_lr,
            **describe_alphas(network),
            "genotype": network.genotype().to_json(),
        }
        scheduler.step()
        if run_folder.writes:
            draw_architecture(run_folder, network, epoch)
        return record

    run_folder.take()
    log.info("%s: %d utterances train the weights, %d the alphas", run_folder.path, len(weight_rows), len(alpha_rows))
    log.info("%.3f M weights; device %s", sum(w.numel() for w in weights) / 1e6, device)
    parts = {
        "network": network,
        "weight_optimizer": weight_optimizer,
        "alpha_optimizer": alpha_optimizer,
        "scheduler": scheduler,
    }
    fit(run_folder, parts, device, config.epochs, len(weight_batches), step, after_epoch, config.print_freq)
    return finish(run_folder, network.genotype(), config)


def make_network(config: SearchConfig, classes: int) -> SearchNetwork:
    """The supernet of the flags."""
    space = SearchSpace(config.cnn_nodes, config.rnn_nodes, config.cnn_ops, config.rnn_ops)
    size = Size(config.layers, config.init_channels, config.rnn_layers, config.rnn_channels)
    return SearchNetwork(space, size, classes, config.dropout)


def unrolled(network: SearchNetwork, optimizer: torch.optim.SGD) -> Unrolled:
    """The step that the weights' optimiser is about to take."""
    group = optimizer.param_groups[0]
    momenta = {name: optimizer.state[w].get("momentum_buffer") for name, w in network.weights().items()}
    present = {name: buffer for name, buffer in momenta.items() if buffer is not None}
    return Unrolled(group["lr"], group["momentum"], group["weight_decay"], present)


@torch.no_grad()
def describe_alphas(network: SearchNetwork) -> dict[str, float]:
    """Per kind of cell: the mean entropy of its edges' softmaxed alphas (in nats), and the share of skip and none."""
    record = {}
    for kind, nodes in network.softmaxed().items():
        p, ops = torch.cat(nodes), network.space.of(kind)[1]
        record[f"alpha_entropy/{kind}"] = float(-(p * p.log()).sum(dim=1).mean())
        for op in {"skip_connect", "none"} & set(ops):
            record[f"alpha_share/{kind}_{op}"] = float(p[:, ops.index(op)].mean())
    return record


@torch.no_grad()
def draw_architecture(run_folder: RunFolder, network: SearchNetwork, epoch: int) -> None:
    """Draw the alphas and the present best cells into plots/ and TensorBoard."""
    plots = run_folder.path / "plots"
    for kind, nodes in network.softmaxed().items():
        picture = plots / f"alphas_{kind}.png"
        weights = [p.cpu().numpy() for p in nodes]
        visualize.draw_alphas(weights, network.space.of(kind)[1], picture, f"{visualize.TITLES[kind]}, epoch {epoch}")
        run_folder.show(f"alphas/{kind}", picture, epoch)
    for picture in visualize.draw_genotype(network.genotype(), plots):
        run_folder.show(f"cells/{picture.stem}", picture, epoch)


def finish(run_folder: RunFolder, genotype: Genotype, config: SearchConfig) -> Genotype:
    """Write the genotype, and say what to do next."""
    if run_folder.writes:
        path = run_folder.path / "genotype.json"
        genotype.save(path)
        log.info("\n%s\n", genotype)
        log.info("genotype  %s\ncells     %s\nnext      python augment.py --name %s --dataset %s --fold %d",
                 path, run_folder.path / "plots", config.name, config.dataset, config.fold)  # fmt: skip
    return genotype


if __name__ == "__main__":
    run_command(lambda: run(parse(SearchConfig, "search")))
