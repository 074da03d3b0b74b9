"""Export: write the network of a run in a format that other programs run, and check the file against the network.

python export.py --model runs/NAME --format onnx --out emotion.onnx --audio FILE.wav ...
"""

from cli import command_line, run_command
from config import ExportConfig, FrontEnd

if __name__ == "__main__":
    CONFIG = command_line(ExportConfig)  # before torch is imported: --help and mistakes take no time

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.features import Transform, read_clips
from models.export_formats import BATCH, FORMATS, INPUT, OUTPUT, largest_difference
from models.saved import SavedModel
from training.inference import find_model, front_end_of
from utils import UserError, whole_file, write_text

CHECKED_BATCHES = 1, 2, 5
"""Batch sizes of the check."""
TOLERANCE = 1e-4
"""The largest difference of a logit that passes the check."""


def run(config: ExportConfig) -> float:
    """Write the network and a description of it; return the largest difference of a logit.

    If the check fails, no file is written or replaced.
    """
    description_path = config.out.with_name(f"{config.out.name}.json")
    for path in (config.out, description_path):
        if path.is_dir():
            raise UserError(f"--out: {path} exists; choose another")
        if path.exists() and not config.overwrite:
            raise UserError(f"--out: {path} exists; choose another, or pass --overwrite")
    model = SavedModel.load(find_model(config.model))
    front_end = front_end_of(model)
    features = compute_features(config.audio, model, front_end)
    description = json.dumps(describe(model, front_end), indent=2, ensure_ascii=False) + "\n"
    write, open_exported = FORMATS[config.format]
    network = model.standardised.eval()
    with whole_file(config.out) as unchecked:
        write(network, front_end.shape, {"emodarts": description}, unchecked)
        difference = largest_difference(network, open_exported(unchecked), features, CHECKED_BATCHES)
        if not difference <= TOLERANCE:  # also if it is NaN
            raise UserError(
                f"the logits of the {config.format} file differ from the model's by up to {difference:.2g}: "
                "not exported"
            )
    write_text(description_path, description)
    print(f"exported  {config.out} ({config.out.stat().st_size / 1e6:.1f} MB), {description_path}")
    inputs = f"{len(features)} inputs, of {len(config.audio)} recordings and of noise"
    print(f"checked   on {inputs}, in batches of 1, 2 and 5: no logit differs by more than {difference:.2g}")
    return difference


def describe(model: SavedModel, front_end: FrontEnd) -> dict[str, Any]:
    """What a program needs to feed the network and to read its output.

    The network standardises its input itself, unless `normalise` is speaker or utterance: then its input is
    (features - mean) / std with the statistics of the speaker's sound, or the utterance's. The network predicts one
    clip; the mean over a recording and its perturbed `copies` is taken outside.
    """
    inside = model.normalise == "training"
    return {
        "version": 1,
        "input": {"name": INPUT, "shape": [BATCH, *front_end.shape]},
        "output": {"name": OUTPUT, "shape": [BATCH, len(model.classes)]},
        "classes": list(model.classes),
        "front_end": front_end.model_dump(),
        "normalise": model.normalise,
        "copies": list(model.copies),
        "standardised_inside": {"mean": model.mean.tolist(), "std": model.std.tolist()} if inside else None,
        "architecture": model.architecture.to_json(),
    }


@torch.no_grad()
def compute_features(audio: Sequence[Path], model: SavedModel, front_end: FrontEnd) -> Tensor:
    """(N, F, T): all clips of the recordings, then noise with the mean and deviation of the training features."""
    transform = Transform(front_end)
    clips = [clip.sound for file in audio for clip in read_clips(file, front_end)]
    features = [transform(torch.from_numpy(clip)[None]) for clip in clips]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(CHECKED_BATCHES), *front_end.shape, generator=generator)
    mean, std = (torch.from_numpy(values)[:, None] for values in (model.mean, model.std))
    return torch.cat([*features, noise * std + mean])


if __name__ == "__main__":
    run_command(run, CONFIG)
