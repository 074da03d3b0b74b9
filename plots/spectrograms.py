"""Mel spectrograms of example utterances, drawn with librosa."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from config import FrontEnd
from plots.charts import INK, MUTED
from utils import whole_file

RANGE = 60  # dB below the loudest point of an utterance
MAX_HOPS, MAX_BANDS = 1000, 128  # of a panel; more would take long to draw and could not be seen


def draw_spectrograms(
    examples: Sequence[tuple[str, str, np.ndarray]], front_end: FrontEnd, path: Path, title: str
) -> None:
    """Draw one panel per example: the level in dB as a colour, by time and frequency.

    examples: (class, name, sound) of each; sound (samples,) float32 at the front-end's sample rate,
    at least one window long. The windows and the mel bands are those of the front-end, but not more
    than can be seen.
    """
    columns = min(len(examples), 2 if len(examples) <= 4 else 3)
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(1.8 + 3.3 * columns, 1.2 + 2.1 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(examples) :]:
        axes.set_visible(False)
    for number, (emotion, name, sound) in enumerate(examples):
        axes = panels.flat[number]
        image = draw_spectrogram(axes, sound, front_end)
        axes.set_title(emotion, color=INK, fontsize=11, loc="left", parse_math=False)
        axes.set_title(name[-40:], color=MUTED, fontsize=7, loc="right", parse_math=False)
        is_left = number % columns == 0
        is_bottom = number + columns >= len(examples)
        axes.tick_params(length=0, colors=INK, labelsize=8, labelleft=is_left, labelbottom=is_bottom)
        axes.set_xlabel("time (s)" if is_bottom else None, color=MUTED, fontsize=9)
        axes.set_ylabel("frequency (Hz)" if is_left else None, color=MUTED, fontsize=9)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panels, aspect=14 * rows, pad=0.02, format="{x:.0f}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=MUTED, labelsize=8)
    bar.set_label("dB relative to the loudest point", color=MUTED, fontsize=9)
    figure.suptitle(title, color=INK, fontsize=14, x=0.02, ha="left", parse_math=False)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix.lstrip("."))


def draw_spectrogram(axes: Any, sound: np.ndarray, front_end: FrontEnd) -> Any:
    """Draw the mel spectrogram of a sound and return the coloured mesh."""
    import librosa.display  # imported here because the import takes more than a second

    hop_length = max(front_end.hop_length, len(sound) // MAX_HOPS)
    windows = {"sr": front_end.sample_rate, "n_fft": front_end.n_fft, "hop_length": hop_length}
    power = librosa.feature.melspectrogram(y=sound, n_mels=min(front_end.n_mels, MAX_BANDS), **windows)
    level = librosa.power_to_db(power, ref=np.max, top_db=RANGE)
    colours = {"cmap": "magma", "vmin": -RANGE, "vmax": 0, "shading": "gouraud"}
    return librosa.display.specshow(level, x_axis="time", y_axis="mel", ax=axes, **windows, **colours)
