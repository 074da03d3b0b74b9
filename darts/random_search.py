"""Random search, the baseline of every search."""

import math
from itertools import chain

from config import SearchConfig
from darts.supernet import search_space
from genotypes import Genotype
from models.joint_network import Size
from models.search_space import different
from training.experiment import Experiment
from training.run_folder import RunFolder, log


class RandomSearch:
    """Draws genotypes from the search space, without training (Li and Talwalkar, UAI 2019)."""

    def __init__(self, config: SearchConfig, experiment: Experiment, folder: RunFolder):
        self.config = config
        self.searched_on = experiment.speakers(())  # nobody

    def run(self) -> list[Genotype]:
        """Draw as many genotypes as there are candidates, all different; fewer if the space has not so many."""
        config = self.config
        space = search_space(config)
        log.info("space     about 10^%.1f genotypes, all equally likely", math.log10(space.size))
        others = (
            space.draw(config.seed, config.fold, number) for number in range(1, 100 * config.candidates)
        )
        drawn = chain([space.draw(config.seed, config.fold)], others)
        return different(drawn, config.candidates, Size.of(config).stem_twice)
