"""Export: the network of a run as a file that other programs run, checked against the original.

python export.py --model runs/NAME --format onnx --out emotion.onnx --audio FILE.wav ...
"""

from cli import command_line, run_command
from config import ExportConfig

if __name__ == "__main__":
    CONFIG = command_line(
        ExportConfig
    )  # before torch is imported, so that --help and mistakes are answered at once

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config import ExportConfig, FrontEnd
from data.features import Transform, read_clips
from models.export_formats import BATCH, FORMATS, INPUT, OUTPUT, largest_difference
from models.saved import SavedModel
from training.inference import find_model, front_end_of
from utils import UserError, whole_file, write_text

SIZES = 1, 2, 5
"""Batch sizes of the check."""
TOLERANCE = 1e-4
"""The largest difference of a logit that passes."""


def run(config: ExportConfig) -> float:
    """Write the network and what there is to know of it; return the largest difference of a logit.

    Nothing appears, and nothing is replaced, unless the check has been passed.
    """
    beside = config.out.with_name(f"{config.out.name}.json")
    for path in (config.out, beside):
        if path.is_dir() or (path.exists() and not config.overwrite):
            raise UserError(
                f"--out: {path} exists; choose another" + ("" if path.is_dir() else ", or pass --overwrite")
            )
    model = SavedModel.load(find_model(config.model))
    front_end = front_end_of(model)
    features = features_of(config.audio, model, front_end)
    text = json.dumps(description(model, front_end), indent=2, ensure_ascii=False) + "\n"
    write, open_again = FORMATS[config.format]
    network = model.standardised.eval()
    with whole_file(config.out) as unchecked:
        write(network, front_end.shape, {"emodarts": text}, unchecked)
        gap = largest_difference(network, open_again(unchecked), features, SIZES)
        if not gap <= TOLERANCE:
            raise UserError(
                f"the {config.format} file's logits differ from the model's by up to {gap:.2g}: not exported"
            )
    write_text(beside, text)
    print(f"exported  {config.out} ({config.out.stat().st_size / 1e6:.1f} MB), {beside}")
    heard = f"{len(features)} inputs, of {len(config.audio)} recordings and of noise"
    print(f"checked   on {heard}, in batches of 1, 2 and 5: no logit differs by more than {gap:.2g}")
    return gap


def description(model: SavedModel, front_end: FrontEnd) -> dict[str, Any]:
    """What a program needs to know to feed the network and to read its answer. The network itself standardises."""
    return {
        "version": 1,
        "input": {"name": INPUT, "shape": [BATCH, *front_end.shape]},
        "output": {"name": OUTPUT, "shape": [BATCH, len(model.classes)]},
        "classes": list(model.classes),
        "front_end": front_end.model_dump(),
        "standardised_inside": {"mean": model.mean.tolist(), "std": model.std.tolist()},
        "architecture": model.architecture.to_json(),
    }


@torch.no_grad()
def features_of(audio: Sequence[Path], model: SavedModel, front_end: FrontEnd) -> Tensor:
    """(N, F, T): all clips of the recordings, and noise of the training features' mean and spread for a full batch."""
    generator, transform = torch.Generator().manual_seed(0), Transform(front_end)
    noise = torch.randn(max(SIZES), *front_end.shape, generator=generator)
    mean, std = (torch.from_numpy(values)[:, None] for values in (model.mean, model.std))
    clips = [clip.sound for file in audio for clip in read_clips(file, front_end)]
    heard = [transform(torch.from_numpy(clip)[None]) for clip in clips]
    return torch.cat([*heard, noise * std + mean])


if __name__ == "__main__":
    run_command(run, CONFIG)
