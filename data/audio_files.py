"""Which files are recordings: by their names, in a folder and its links, and by their first bytes."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from utils import UserError


def endings(names: str) -> tuple[str, ...]:
    """The endings of files in these formats: `wav flac` becomes (".wav", ".flac")."""
    return tuple(f".{name}" for name in names.split())


PUBLISHED = endings("wav flac")
LOSSLESS = endings(
    "wave wavex w64 rf64 aiff aif aifc au snd caf sph nist voc sf ircam avr htk iff svx paf pvf sd2 sds "
    "mat4 mat5 mpc2k wve xi"
)
LOSSY = endings("opus ogg oga mp3 mp2")
READABLE = (*PUBLISHED, *LOSSLESS, *LOSSY)
"""Endings of the formats that are read; of two copies of a recording, the one that comes first here is taken."""
FOREIGN = endings(
    "m4a m4b m4r mp4 m4v mov 3gp 3g2 webm mkv mka aac ac3 eac3 amr awb wma wmv asf ape wv tta spx dts shn "
    "ra rm qcp avi flv mpg mpeg raw pcm"
)
"""Endings of recordings that cannot be read as they are."""

SIGNATURES = {
    (4, b"ftyp"): "MPEG-4, as .m4a and .mp4",
    (0, b"\x1aE\xdf\xa3"): "Matroska, as .webm and .mkv",
    (0, b"0&\xb2u\x8ef\xcf\x11"): "Windows Media, as .wma",
    (0, b"#!AMR"): "AMR",
    (0, b"#!SILK"): "SILK",
    (0, b"wvpk"): "WavPack",
    (0, b"MAC "): "Monkey's Audio",
    (0, b"TTA1"): "True Audio",
    (0, b"ajkg"): "Shorten",
    (0, b".RMF"): "RealMedia",
    (0, b".ra\xfd"): "RealAudio",
    (8, b"AVI "): "AVI video",
    (0, b"FLV"): "Flash video",
    (0, b"\x0bw"): "AC-3",
    (28, b"Speex"): "Speex",
}
"""Place and bytes that tell a format which cannot be read."""
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ")
HEAD = 512  # bytes that are looked at


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and in those below, without hidden ones.

    Links are followed, to each folder once: not where they lead back to a folder that is read anyway.
    Raises `UserError` if a folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    folders, links = [folder], []
    root = os.path.realpath(folder)
    while folders or links:
        here = folders.pop() if folders else links.pop(0)  # the folders themselves come first
        real = os.path.realpath(here)
        if real in seen or (real != root and Path(root).is_relative_to(real)):
            continue
        seen.add(real)
        for entry in _visible(here):
            path = Path(entry.path)
            if entry.is_symlink() and os.path.isdir(path):
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                found.append(path)
    return found


def _visible(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if each.name[0] != "."), key=lambda each: each.name)
    except OSError as error:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}") from None


def preference(file: Path) -> int:
    """The place of a file's format in `READABLE`; the lowest is taken."""
    return READABLE.index(file.suffix.lower())


def is_readable(file: Path) -> bool:
    """Whether the name is that of a recording in a format that is read."""
    return file.suffix.lower() in READABLE


def is_foreign(file: Path) -> bool:
    """Whether the name is that of a recording in a format that is not read."""
    return file.suffix.lower() in FOREIGN


def describe_foreign(files: Sequence[Path]) -> str:
    """Say what can be done with recordings in formats that are not read."""
    endings = ", ".join(sorted({file.suffix.lower() for file in files}))
    count = f"{len(files):,} file{'s' * (len(files) > 1)} in formats that cannot be read ({endings})"
    return f"{count}; convert them, for example: {_conversion(files[0])}"


def why_not_audio(path: Path) -> str:
    """What a file holds instead of a recording that can be read, by its first bytes; empty if it may be one."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "empty, 0 bytes"
    if not any(head):
        return "it begins with zeros, as an incomplete download does"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the recording: run git lfs pull"
    if b"/annex/objects/" in head:
        return "a git-annex pointer in place of the recording: run git annex get"
    if head.startswith(ARCHIVES):
        return "an archive or compressed file: unpack it"
    for (place, mark), name in SIGNATURES.items():
        if head[place:].startswith(mark):
            return f"{name}; convert it, for example: {_conversion(path)}"
    if head[0] == 0xFF and head[1:2] and head[1] & 0xF6 == 0xF0:  # as MP3, but for the layer
        return f"AAC; convert it, for example: {_conversion(path)}"
    return "" if head.startswith((b"NIST_1A", b"PVF1")) else _kind_of_text(head)


def _kind_of_text(head: bytes) -> str:
    """Name the kind of a text; empty if it is no text."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8-sig", errors="ignore").strip()
    if not text or not all(c.isprintable() or c.isspace() for c in text) or len(text) < len(head) / 4:
        return ""
    start = text[:200].lower()
    if start.startswith(("<!doctype html", "<html")) or "<html" in start:
        return "a web page (HTML): download the recording itself"
    if start.startswith(("{", "[")):
        return "JSON, not sound"
    if start.startswith("<?xml"):
        return "XML, not sound"
    return f"text, not sound: it begins with {text.splitlines()[0][:40]!r}"


def _conversion(file: Path) -> str:
    """The command that makes a WAV file of another format; of one that is called .wav, a FLAC file."""
    target = file.with_suffix(".flac" if file.suffix.lower() == ".wav" else ".wav")
    return f"ffmpeg -i {shlex.quote(str(file))} {shlex.quote(str(target))}"
