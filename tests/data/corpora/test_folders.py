"""The search for the parts of a corpus, and the folder that an error suggests."""

from pathlib import Path

import pytest
from trees import plant

from data.corpora.folders import find_parts
from utils import UserError

PLACES = {"labels": ("my.csv", "Labels/my.csv"), "audio": ("take[1-3]", "wav/take[1-3]")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a corpus, several levels below others."""
    files = {"Labels/my.csv": b"", "wav/take2/x/y/z.wav": "speech"}
    return plant(tmp_path / "many" / "corpora" / "of" / "mine", files)


def test_first_matching_place_counts(root) -> None:
    assert find_parts(root, "Mine", **PLACES) == [root / "Labels" / "my.csv", root / "wav" / "take2"]
    plant(root, {"my.csv": b"", "wav/take1/1.wav": "speech", "take3/1.wav": "speech"})
    assert find_parts(root, "Mine", **PLACES) == [root / "my.csv", root / "take3"]
    (root / "take3").rename(root / "take4")
    assert find_parts(root, "Mine", **PLACES) == [root / "my.csv", root / "wav" / "take1"]


@pytest.mark.parametrize(
    "wrong", ["..", "../..", "wav", "wav/take2/x", "wav/take2/x/y/", "Labels/my.csv", "wav/gone"]
)
def test_error_names_the_correct_folder_above_or_below(root, wrong: str) -> None:
    with pytest.raises(UserError, match=f"{wrong.strip('./')} is not the folder of Mine: give {root}$"):
        find_parts((root / wrong).resolve(), "Mine", **PLACES)


def test_error_for_relative_root_is_absolute(root, monkeypatch) -> None:
    monkeypatch.chdir(root / "wav")
    with pytest.raises(UserError, match=f"^. is not the folder of Mine: give {root}$"):
        find_parts(Path(), "Mine", **PLACES)


def test_error_names_the_missing_part(root, tmp_path) -> None:
    message = r"no labels in .*/many: the Mine folder should hold my.csv or Labels/my.csv$"
    with pytest.raises(UserError, match=message):
        find_parts(tmp_path / "many", "Mine", **PLACES)
    (root / "wav").rename(root / "sound")
    with pytest.raises(UserError, match=rf"no audio in {root}: .* hold take\[1-3\] or wav/take\[1-3\]$"):
        find_parts(root, "Mine", **PLACES)
    for gone in (root / "gone", root / "Labels" / "my.csv"):
        message = rf"no folder at {gone}: .* Mine folder that holds my.csv and take\[1-3\]$"
        with pytest.raises(UserError, match=message):
            find_parts(gone, "Mine", **PLACES)
