"""Search: train a supernet of mixed CNN and LSTM/RNN operations, and derive a genotype from its alphas.

python search.py --name NAME --dataset DATASET --fold K     ->  runs/NAME/search/genotype.json

--strategy evolution and random find a genotype of the same space in other ways (docs/searching.md).
"""

from cli import command_line, command_to_type, run_command
from config import AugmentConfig, SearchConfig

if __name__ == "__main__":
    CONFIG = command_line(SearchConfig)  # before torch is imported: --help and mistakes take no time

from dataclasses import replace
from typing import Any

from darts import candidates, planner
from darts.evolution import Evolution
from darts.gradient_search import GradientSearch
from darts.random_search import RandomSearch
from data.speakers import SpeakerSet
from genotypes import Genotype, resolve
from models.joint_network import Size
from plots import cells
from training import distributed
from training.experiment import start_experiment
from training.run_folder import RunFolder, log
from utils import delete_folder

STRATEGIES = {"darts": GradientSearch, "evolution": Evolution, "random": RandomSearch}


def run(config: SearchConfig) -> Genotype | None:
    """Search on the training speakers of a fold; return the genotype.

    The evolution and --candidates also use the validation speakers; nothing uses the test speakers.
    With --plan, print how much memory the search would take, and return None.
    """
    experiment = start_experiment(config)
    Size.of(config).check_bands(experiment.store.front_end.shape[0])
    candidates.check_parallel(config)
    if config.candidates > 1:
        candidates.check_store(config, experiment.store)
    if config.plan:
        print(planner.table(experiment, config))
        return None
    plan = None
    if config.strategy != "random":
        plan = planner.choose(experiment, config)
        config = plan.config
        experiment = replace(experiment, config=config)
    sections = candidates.sections(config)
    origin = experiment.origin(**genotype_inputs(config))
    folder = RunFolder("search", config, distributed.is_first(), origin, sections=sections)
    search = STRATEGIES[config.strategy](config, experiment, folder)
    with folder:
        if config.overwrite and folder.writes:
            delete_folder(config.folder / "candidates")
        distributed.barrier()  # no rank looks for a checkpoint before rank 0 has taken the folder
        log.info("search    %s", folder.path)
        if plan:
            log.info("memory    %s", plan)
        genotype, *others = search.run()
        searched_on = search.searched_on
        if others:
            genotype, searched_on = candidates.choose([genotype, *others], searched_on, config, experiment)
        finish(folder, genotype, searched_on, config)
    return genotype


def genotype_inputs(config: SearchConfig) -> dict[str, Any]:
    """The genotypes that the flags name, as inputs of the run, so that it is not resumed with others.

    Raises `UserError` if one of them is none.
    """
    given = [resolve(source).to_json() for source in config.start_genotypes]
    return {"start_genotypes": given} if given else {}


def finish(
    folder: RunFolder, genotype: Genotype, searched_on: SpeakerSet | None, config: SearchConfig
) -> None:
    """Write the genotype and the speakers it was searched on, and print the next command."""
    path = folder.path / "genotype.json"
    if folder.writes:
        cells.draw_genotype(genotype, folder.plots)
        genotype.save(path, searched_on and searched_on.to_json())
    log.info("\n%s\n", genotype)
    log.info("genotype  %s\npictures  %s", path, folder.plots)
    shown = {"name": config.name, "dataset": config.dataset, "fold": config.fold}
    log.info("next      %s", command_to_type(AugmentConfig, config.config, shown, config.shared_flags()))


if __name__ == "__main__":
    run_command(run, CONFIG)
