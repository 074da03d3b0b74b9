"""Recordings are found below linked folders, once; what is no recording is named for what it is."""

import os
import shlex
from pathlib import Path

import pytest
import soundfile

from config import FrontEnd
from data.audio_files import FOREIGN, READABLE, describe_foreign, files_below, why_not_audio
from data.features import UnreadableAudio, read_clips
from utils import UserError


def place(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in files_below(folder))


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    place(
        root / "Actor_01/a.wav", elsewhere / "two/b.wav", elsewhere / "three/deep/c.wav", elsewhere / "d.wav"
    )
    link(root / "Actor_02", elsewhere / "two")
    link(root / "Actor_03", "../elsewhere/three")
    link(root / "d.wav", elsewhere / "d.wav")
    assert names(root) == ["Actor_01/a.wav", "Actor_02/b.wav", "Actor_03/deep/c.wav", "d.wav"]
    link(tmp_path / "link to it", root)
    assert names(tmp_path / "link to it") == names(root)


LOOPS = {
    "to itself": lambda root: link(root / "loop", "loop"),
    "to its folder": lambda root: link(root / "a/loop", "."),
    "to the root": lambda root: link(root / "a/loop", root),
    "above the root": lambda root: link(root / "loop", root.parent),
    "to the whole disk": lambda root: link(root / "loop", "/"),
    "in a ring": lambda root: (link(root / "a/to b", root / "b"), link(root / "b/to a", root / "a")),
    "twice": lambda root: (link(root / "0", root / "a"), link(root / "z", root / "a")),
    "into a ring elsewhere": lambda root: (
        link(root.parent / "other/back", root),
        link(root / "other", root.parent / "other"),
    ),
}


@pytest.mark.parametrize("case", LOOPS)
def test_no_folder_is_read_twice(tmp_path: Path, case: str) -> None:
    root = tmp_path / "corpus"
    place(root / "a/1.wav", root / "b/2.wav", tmp_path / "beside.wav")
    LOOPS[case](root)
    assert [name for name in names(root) if name.endswith("wav")] == ["a/1.wav", "b/2.wav"]


def test_hidden_files_and_folders_stay_out(tmp_path: Path) -> None:
    place(tmp_path / "._a.wav", tmp_path / ".trash/b.wav", tmp_path / "c/.d.wav", tmp_path / "e.wav")
    assert names(tmp_path) == ["e.wav"]


def test_every_format_of_soundfile_is_readable() -> None:
    known = {f".{name.lower()}" for name in soundfile.available_formats()}
    assert known - set(READABLE) == {".raw"}
    assert not set(READABLE) & set(FOREIGN)
    assert READABLE[:2] == (".wav", ".flac")


def test_the_advice_is_a_command_that_can_be_pasted() -> None:
    files = [Path("my talks/it's.m4a"), Path("b.webm")]
    text = describe_foreign(files)
    assert text.startswith(
        "2 files in formats that cannot be read (.m4a, .webm); convert them, for example: "
    )
    assert shlex.split(text.split("example: ")[1]) == [
        "ffmpeg",
        "-i",
        "my talks/it's.m4a",
        "my talks/it's.wav",
    ]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0\nsize 72188\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>"
CONTENTS = {
    "LFS": (LFS, "a Git LFS pointer .*: run git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s72188--4d7a.wav\n", "git annex get"),
    "page": (PAGE, "a web page"),
    "page after a comment": (b"\xef\xbb\xbf<!-- saved -->\n" + PAGE, "a web page"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "JSON": (b'{"message": "Not Found", "status": 404}', "JSON"),
    "JSON list": (b'[\n {"a": 1}\n]', "JSON"),
    "text": ("Zugriff verweigert: größer".encode(), "text, not sound: it begins with 'Zugriff"),
    "text cut inside a letter": (b"x" * 511 + "ü".encode(), "text, not sound"),
    "UTF-16 text": ("file,speaker\n".encode("utf-16"), "text, not sound: it begins with 'file,speaker'"),
    "nothing": (b"", "empty, 0 bytes"),
    "zeros": (bytes(4096), "zeros"),
    "ZIP": (b"PK\x03\x04\x14\0\0\0", "unpack"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "unpack"),
    "m4a": (b"\0\0\0\x1cftypM4A \0\0\2\0isomiso2", "MPEG-4.* convert it, for example: ffmpeg -i "),
    "mov": (b"\0\0\0\x14ftypqt  \0\0\2\0", "MPEG-4"),
    "webm": (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81", "Matroska.* ffmpeg"),
    "aac": (b"\xff\xf1`@F?\xfc\xde\x02\0Lavc59", "AAC; .* ffmpeg"),
    "aac, MPEG-2": (b"\xff\xf9`@F?\xfc\xde\x02\0", "AAC; .* ffmpeg"),
    "wma": (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel", "Windows Media.* ffmpeg"),
    "amr": (b"#!AMR\n\x3c\x91\x17\x16", "AMR; .* ffmpeg"),
    "speex": (b"OggS\0\2" + bytes(22) + b"Speex   1.2", "Speex; .* ffmpeg"),
    "noise": (bytes(range(128, 255)) * 9, "no audio format is recognised"),
}


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.dat"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_audio_is_named_for_what_it_is(tmp_path: Path, content: str, name: str, capfd) -> None:
    data, reason = CONTENTS[content]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableAudio, match=reason) as caught:
        list(read_clips(tmp_path / name, FrontEnd()))
    assert caught.value.reason.startswith("not readable as audio (")
    assert "\n" not in str(caught.value)
    if "ffmpeg" in reason:
        source, target = caught.value.reason.rstrip(")").split()[-2:]
        assert source == str(tmp_path / name)
        assert target != source
        assert Path(target).suffix in (".wav", ".flac")


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.wav", "WAV"), ("a.flac", "FLAC"), ("a.ogg", "OGG"), ("a.opus", "OGG"), ("a.mp3", "MP3"), ("a.sph", "NIST"),
     ("a.aiff", "AIFF"), ("a.au", "AU"), ("a.caf", "CAF"), ("a.w64", "W64"), ("a.pvf", "PVF"), ("WAV", "NIST")],
)  # fmt: skip
def test_audio_is_not_taken_for_something_else(tmp_path: Path, name: str, form: str) -> None:
    subtype = "OPUS" if name == "a.opus" else None
    soundfile.write(tmp_path / name, [0.1, -0.1] * 8000, 16_000, format=form, subtype=subtype)
    assert why_not_audio(tmp_path / name) == ""
    assert len(list(read_clips(tmp_path / name, FrontEnd()))) == 1


@pytest.mark.parametrize(("name", "kept"), [("a.wav", 30), ("a.aiff", 20), ("a.flac", 60), ("a.ogg", 100)])
def test_a_header_that_is_cut_short_is_named(tmp_path: Path, name: str, kept: int) -> None:
    soundfile.write(tmp_path / name, [0.1, -0.1] * 8000, 16_000)
    os.truncate(tmp_path / name, kept)
    with pytest.raises(UnreadableAudio, match=r"not readable as audio \(damaged or cut short: "):
        list(read_clips(tmp_path / name, FrontEnd()))


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch) -> None:
    place(tmp_path / "locked/a.wav")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked cannot be read: Permission denied"):
        files_below(tmp_path)
