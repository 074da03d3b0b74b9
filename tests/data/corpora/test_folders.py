"""Where the parts of a corpus are looked for, and which folder an error names."""

from pathlib import Path

import pytest
from trees import plant

from data.corpora.folders import find_parts
from utils import UserError

PLACES = {"labels": ("my.csv", "Labels/my.csv"), "audio": ("take[1-3]", "wav/take[1-3]")}


@pytest.fixture
def right(tmp_path: Path) -> Path:
    """The folder of a corpus, deep in others."""
    return plant(
        tmp_path / "many" / "corpora" / "of" / "mine", {"Labels/my.csv": b"", "wav/take2/x/y/z.wav": "speech"}
    )


def test_the_first_of_the_places_counts(right) -> None:
    assert find_parts(right, "Mine", **PLACES) == [right / "Labels" / "my.csv", right / "wav" / "take2"]
    plant(right, {"my.csv": b"", "wav/take1/1.wav": "speech", "take3/1.wav": "speech"})
    assert find_parts(right, "Mine", **PLACES) == [right / "my.csv", right / "take3"]
    (right / "take3").rename(right / "take4")
    assert find_parts(right, "Mine", **PLACES) == [right / "my.csv", right / "wav" / "take1"]


@pytest.mark.parametrize(
    "wrong", ["..", "../..", "wav", "wav/take2/x", "wav/take2/x/y/", "Labels/my.csv", "wav/gone"]
)
def test_the_right_folder_is_named_from_above_and_below(right, wrong: str) -> None:
    with pytest.raises(UserError, match=f"{wrong.strip('./')} is not the folder of Mine: give {right}$"):
        find_parts((right / wrong).resolve(), "Mine", **PLACES)


def test_a_relative_root(right, monkeypatch) -> None:
    monkeypatch.chdir(right / "wav")
    with pytest.raises(UserError, match=f"^. is not the folder of Mine: give {right}$"):
        find_parts(Path(), "Mine", **PLACES)


def test_what_is_missing_is_named(right, tmp_path) -> None:
    with pytest.raises(
        UserError, match=r"no labels in .*/many: the Mine folder should hold my.csv or Labels/my.csv$"
    ):
        find_parts(tmp_path / "many", "Mine", **PLACES)
    (right / "wav").rename(right / "sound")
    with pytest.raises(UserError, match=rf"no audio in {right}: .* hold take\[1-3\] or wav/take\[1-3\]$"):
        find_parts(right, "Mine", **PLACES)
    for gone in (right / "gone", right / "Labels" / "my.csv"):
        with pytest.raises(
            UserError, match=rf"no folder at {gone}: .* Mine folder that holds my.csv and take\[1-3\]$"
        ):
            find_parts(gone, "Mine", **PLACES)
