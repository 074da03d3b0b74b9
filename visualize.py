"""Draw every cell of a genotype, which is a file, a string form, JSON or a built-in name; of a log, the last one.

python visualize.py runs/demo/search/genotype.json --out plots
"""

from cli import command_line, note, run_command
from config import VisualizeConfig
from genotypes import read_source
from plots.cells import draw_genotype
from utils import UserError


def run(config: VisualizeConfig) -> None:
    """Draw the cells and print the paths of the pictures."""
    genotype, _, place = read_source(config.genotype)
    if place:
        note(place)
    try:
        paths = draw_genotype(genotype, config.out)
    except OSError as error:
        raise UserError(
            f"cannot write to {str(config.out)[:80]!r}: {error.strerror}; give another --out"
        ) from None
    print(*paths, sep="\n")


if __name__ == "__main__":
    run_command(run, command_line(VisualizeConfig))
