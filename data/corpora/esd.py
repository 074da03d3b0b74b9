"""ESD: ten Mandarin (0001-0010) and ten English speakers (0011-0020) say 350 sentences in five emotions.

    0001/0001.txt                       one line per utterance: name, words and label, separated by tabs
    0001/Angry/0001_000351.wav          or, with the publisher's split (train, evaluation, test):
    0001/Angry/train/0001_000351.wav

The label files determine which utterances are listed: audio without a line is left out, and lines without
audio are listed. Label files are encoded as UTF-8, UTF-16, GB 18030 or Latin-1; Mandarin ones may have
Chinese labels. A few lines lack a tab or the label; a missing label is taken from the folder of the audio.
Each emotion has the same 350 sentences in the same order, so the number gives the text: `zh001` to `zh350`
and `en001` to `en350`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpora.file_names import NamedFiles, find_named_files
from data.corpora.label_files import look_up
from data.corpora.utterance import FEMALE, MALE, Utterance
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
MEN = ("0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020")
# Keys: the option `language`. Each of the five emotions is spoken by all speakers.
COMPLETE_COUNTS = {
    language: dict.fromkeys(LABELS.values(), 350 * speakers)
    for language, speakers in (("all", 20), ("english", 10), ("mandarin", 10))
}
SPLITS = ("train", "evaluation", "test")
SENTENCES = 350


def read(root: Path, *, language: str = "all") -> list[Utterance]:
    """Return the utterances below the folder `root`: of `language` english, mandarin, or all.

    Raises `UserError` if there is no audio, or a speaker has no label file or an invalid one.
    """
    speakers = look_up(SPEAKERS, language, "ESD: unknown language")
    audio = find_named_files(root, rf"{speakers}_\d{{6}}", EXAMPLE)
    label_files = find_named_files(root, speakers, "0001/0001.txt", suffix=".txt")
    if unlabelled := sorted({name[:4] for name in audio} - set(label_files)):
        speaker = unlabelled[0]
        raise UserError(f"{root} has audio of speaker {speaker} but no label file {speaker}/{speaker}.txt")
    utterances: dict[str, Utterance] = {}
    for speaker, (label_file, _) in label_files.items():
        for where, name, label in _labels(label_file, speaker):
            utterance = _utterance(where, name, label, label_file.parent, audio)
            if utterances.setdefault(name, utterance) != utterance:
                raise UserError(f"{where}: {name} already has a different label: remove the wrong line")
    return [utterances[name] for name in sorted(utterances)]


def _utterance(where: str, name: str, label: str | None, folder: Path, audio: NamedFiles) -> Utterance:
    if name in audio:
        file, _ = audio[name]
        label = label or next((part for part in reversed(file.parts[:-1]) if part in LABELS), None)
    if label is None:
        raise UserError(f"{where}: {name} has no label; known are {', '.join(LABELS)}")
    if name not in audio:
        english_label = next(each for each in LABELS if LABELS[each] == LABELS[label])
        file = folder / english_label / f"{name}.wav"
    speaker, number = name.split("_")
    language = "zh" if speaker <= "0010" else "en"
    text = f"{language}{(int(number) - 1) % SENTENCES + 1:03d}"
    split = file.parent.name if file.parent.name in SPLITS else ""
    sex = MALE if speaker in MEN else FEMALE
    return Utterance(name, file, speaker, LABELS[label], split=split, text=text, sex=sex)


def _labels(path: Path, speaker: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield the place, the name and the label (None if missing) of each line of a label file."""
    found = False
    for number, line in enumerate(re.split(r"\r\n?|\n", _decode(path)), start=1):
        if match := re.match(rf"\s*({speaker}_\d{{6}})(.*)", line, re.DOTALL):
            found = True
            rest = match[2].rstrip()
            yield f"{path}, line {number}", match[1], next(filter(rest.endswith, LABELS), None)
    if not found:
        raise UserError(f"{path} has no line of speaker {speaker}: a line is name, words, label, with tabs")


def _decode(path: Path) -> str:
    """Return the text of a label file. Names and labels are correct even if the words are not."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"label file {path} cannot be read: {error.strerror}") from None
    encodings = ["utf-16"] if b"\0" in data else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
