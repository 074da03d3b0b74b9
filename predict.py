"""Predict: tell the emotion of recordings with the model of a run.

python predict.py --model runs/NAME FILE ...
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from config import PredictConfig
from data.features import Transform, load_clips
from data.front_end import FrontEnd
from devices import make_fabric
from flags import parse
from models.saved import SavedModel
from training import pooled
from utils import UserError, progress, run_command


def run(config: PredictConfig) -> list[dict]:
    """Predict every file and print the result. `UserError`, and no result, where one of the files cannot be read."""
    model = SavedModel.load(find_model(config.model))
    device = make_fabric(config.gpus).device
    probabilities = np.concatenate(list(predict(model, config.files, config.batch_size, device)))
    results = [describe(file, p, model.classes) for file, p in zip(config.files, probabilities, strict=True)]
    show(results, model.classes, config)
    return results


def find_model(path: Path) -> Path:
    """The model file of a run folder, of its augment folder, or the file itself."""
    inside = [path / "augment" / "model.safetensors", path / "model.safetensors"]
    return next((file for file in inside if file.exists()), path if path.suffix else inside[0])


@torch.inference_mode()
def predict(model: SavedModel, files: Sequence[Path], batch_size: int, device: torch.device) -> Iterator[np.ndarray]:
    """Class probabilities (N, classes) of the files, batch by batch, by the front-end the model was trained with."""
    front_end = front_end_of(model)
    network = nn.Sequential(Transform(front_end), model.standardised).to(device).eval()
    for start in progress(range(0, len(files), batch_size), "predict"):
        clips = [load_clips(file, front_end)[1] for file in files[start : start + batch_size]]
        sounds = torch.from_numpy(np.stack([clip.sound for each in clips for clip in each]))
        logits = torch.cat([network(part.to(device)) for part in sounds.split(batch_size)])
        yield pooled(logits, [len(each) for each in clips]).exp().cpu().numpy()


def front_end_of(model: SavedModel) -> FrontEnd:
    """The front-end the model was trained with; `UserError` where what the file says of it makes no sense."""
    try:
        front_end = FrontEnd(**model.front_end)
    except (ValidationError, TypeError) as error:
        raise UserError(f"the model's front-end is damaged: {str(error)[:200]}") from None
    if front_end.coefficients != len(model.mean):
        raise UserError(f"the model takes {len(model.mean)} coefficients, its front-end gives {front_end.coefficients}")
    return front_end


def describe(file: Path, p: np.ndarray, classes: Sequence[str]) -> dict:
    """One prediction, as the JSON has it."""
    by_class = dict(zip(classes, p.tolist(), strict=True))
    return {"file": str(file), "emotion": classes[p.argmax()], "probabilities": by_class}


def show(results: Sequence[dict], classes: Sequence[str], config: PredictConfig) -> None:
    """Print JSON, CSV, or a table."""
    if config.json_:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    elif config.csv:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(["file", "emotion", *classes])
        lines.writerows([r["file"], r["emotion"], *(f"{p:.6f}" for p in r["probabilities"].values())] for r in results)
    else:
        width = max(len(r["file"]) for r in results)
        print(f"{'file':{width}}  {'emotion':10}", *(f"{name:>8}" for name in classes))
        for r in results:
            print(f"{r['file']:{width}}  {r['emotion']:10}", *(f"{p:8.1%}" for p in r["probabilities"].values()))


if __name__ == "__main__":
    run_command(lambda: run(parse(PredictConfig, "predict")))
