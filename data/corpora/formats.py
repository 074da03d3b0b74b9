"""Recordings of a corpus in other formats than the published one: which copy is read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cli import note
from data.audio_files import READABLE, describe_foreign, is_foreign, is_readable, preference
from data.corpora.utterance import Utterance


def choose_formats(copies: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """Of the files of each recording, return those of the format that is preferred.

    Recordings in foreign formats alone are left out. Notes say which formats are not read.
    """
    chosen: dict[str, list[Path]] = {}
    unread: set[str] = set()
    several = 0
    foreign = []
    for name, files in copies.items():
        readable = list(filter(is_readable, files))
        if not readable:
            foreign.append(files[0])
            continue
        best = min(map(preference, readable))
        chosen[name] = [file for file in readable if preference(file) == best]
        others = {file.suffix.lower() for file in readable} - {READABLE[best]}
        unread |= others
        several += bool(others)
    if several:
        which = f"{several:,} recording{'s' * (several > 1)} with copies in other formats"
        note(f"{which}, which are not read: {', '.join(sorted(unread))}")
    if foreign:
        note(f"passed over: {describe_foreign(foreign)}")
    return chosen


def in_any_format(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Replace the file of each utterance by the copy in its folder that is preferred; keep it if there is none."""
    copies = {folder: _by_stem(folder) for folder in {each.file.parent for each in utterances}}
    listed = {each.utterance: copies[each.file.parent].get(each.file.stem, []) for each in utterances}
    chosen = choose_formats({name: files for name, files in listed.items() if files})
    return [replace(each, file=chosen.get(each.utterance, [each.file])[0]) for each in utterances]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """The recordings in a folder, by their name without the suffix."""
    copies: dict[str, list[Path]] = {}
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for file in (folder / name for name in names):
        if is_readable(file) or is_foreign(file):
            copies.setdefault(file.stem, []).append(file)
    return copies
