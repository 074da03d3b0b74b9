"""ESD: ten speakers of Mandarin (0001-0010) and ten of English (0011-0020), 350 sentences each, in five emotions.

    0001/0001.txt                       one line an utterance: name, words and label, with tabs between
    0001/Angry/0001_000351.wav          or, as the publisher parts them,
    0001/Angry/train/0001_000351.wav    train, evaluation, test

The label file says what is listed, even where the sound is missing; sounds of which it says nothing are left out.
Label files come as UTF-8, UTF-16, GB 18030 and Latin-1, and Mandarin ones have labels in Chinese. A few lines lack a
tab, or the label: then the folder of the sound tells it. Every emotion has 350 numbers in the same order of sentences,
so that the number tells the text, `zh001` to `zh350` and `en001` to `en350`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.names import Found, find
from data.corpora.utterance import Utterance
from utils import UserError

EXAMPLE = "0001/Angry/0001_000351.wav"
LABELS = {
    "Angry": "angry",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
    "生气": "angry",
    "快乐": "happy",
    "中立": "neutral",
    "伤心": "sad",
    "惊喜": "surprised",
}
SPEAKERS = {
    "all": r"00(?:0[1-9]|1\d|20)",
    "english": r"00(?:1[1-9]|20)",
    "mandarin": r"00(?:0[1-9]|10)",
}
SPLITS = ("train", "evaluation", "test")
SENTENCES = 350


def read(root: Path, *, language: str = "all") -> list[Utterance]:
    """List the utterances of one `language`, english or mandarin, or of all, in the folder `root`.

    Raises `UserError` where there is no sound, a speaker has no label file, or that file cannot be understood.
    """
    if language not in SPEAKERS:
        raise UserError(f"unknown language {language!r} of ESD: known are {', '.join(SPEAKERS)}")
    sounds = find(root, rf"{SPEAKERS[language]}_\d{{6}}", EXAMPLE)
    tables = find(root, SPEAKERS[language], "0001/0001.txt", suffix=".txt")
    if bare := sorted({name[:4] for name in sounds} - set(tables)):
        raise UserError(f"{root} has sounds of speaker {bare[0]} and no label file {bare[0]}/{bare[0]}.txt")
    utterances: dict[str, Utterance] = {}
    for speaker, (table, _) in tables.items():
        for where, name, label in _lines(table, speaker):
            utterance = _utterance(where, name, label, table.parent, sounds)
            if utterances.setdefault(name, utterance) != utterance:
                raise UserError(f"{where}: {name} has another label already; keep the right line")
    return [utterances[name] for name in sorted(utterances)]


def _utterance(where: str, name: str, label: str | None, folder: Path, sounds: Found) -> Utterance:
    if name in sounds:
        file = sounds[name][0]
        label = label or next((part for part in reversed(file.parts[:-1]) if part in LABELS), None)
    if label is None:
        raise UserError(f"{where}: {name} has no label; known are {', '.join(LABELS)}")
    if name not in sounds:
        english = next(known for known in LABELS if LABELS[known] == LABELS[label])
        file = folder / english / f"{name}.wav"
    speaker, number = name.split("_")
    text = f"{'zh' if speaker <= '0010' else 'en'}{(int(number) - 1) % SENTENCES + 1:03d}"
    split = file.parent.name if file.parent.name in SPLITS else ""
    return Utterance(name, file, speaker, LABELS[label], split=split, text=text)


def _lines(table: Path, speaker: str) -> Iterator[tuple[str, str, str | None]]:
    """Place, name and label (None where it has none) of each line of a label file."""
    empty = True
    for number, line in enumerate(re.split(r"\r\n?|\n", _decode(table)), start=1):
        if match := re.match(rf"\s*({speaker}_\d{{6}})(.*)", line, re.DOTALL):
            empty = False
            rest = match[2].rstrip()
            yield f"{table}, line {number}", match[1], next(filter(rest.endswith, LABELS), None)
    if empty:
        raise UserError(
            f"{table} has no line of speaker {speaker}: due are name, words and label, with tabs between"
        )


def _decode(table: Path) -> str:
    """The text of a label file, whatever its encoding; names and labels are right in any case."""
    try:
        data = table.read_bytes()
    except OSError as error:
        raise UserError(f"label file {table} cannot be read: {error.strerror}") from None
    for encoding in ("utf-16",) if b"\0" in data else ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
