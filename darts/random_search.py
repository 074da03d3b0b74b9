"""Random search, the baseline of every search."""

import math

from config import SearchConfig
from darts.supernet import search_space
from genotypes import Genotype
from plots import cells
from training.experiment import Experiment
from training.run_folder import RunFolder, log


class RandomSearch:
    """Draws a genotype from the search space, without training (Li and Talwalkar, UAI 2019)."""

    def __init__(self, config: SearchConfig, experiment: Experiment, folder: RunFolder):
        self.config = config
        self.folder = folder
        self.searched_on = experiment.speakers(())  # nobody

    def run(self) -> Genotype:
        """Draw the genotype of this seed and fold."""
        space = search_space(self.config)
        log.info("space     about 10^%.1f genotypes, all equally likely", math.log10(space.size))
        genotype = space.draw(self.config.seed, self.config.fold)
        if self.folder.writes:
            cells.draw_genotype(genotype, self.folder.plots)
        return genotype
