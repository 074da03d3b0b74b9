"""Drawings of cells and charts, and the command visualize.py."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import graphviz
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from matplotlib.transforms import Bbox

import visualize
from config import VisualizeConfig
from genotypes import BUILT_IN, CNN_OPS, RNN_OPS
from plots import cells
from plots import charts as plots

ROOT = Path(__file__).resolve().parent.parent
BOTH = BUILT_IN["cnn_lstm"]


def command(*arguments, **environment):
    line = [sys.executable, str(ROOT / "visualize.py"), *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, text=True, env=os.environ | environment, check=False, timeout=60
    )


def softmaxed(ops, nodes=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(len(ops)), i + 2) for i in range(nodes)]


def assert_picture(path):
    """Check that a PNG can be decoded and is not blank."""
    pixels = imread(path, format="png")
    assert min(pixels.shape[:2]) > 100
    assert pixels[..., :3].std() > 0.01


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["graphviz", "matplotlib"])
def renderer(request, monkeypatch):
    """Draw cells with and without Graphviz' program `dot`."""
    if request.param == "matplotlib":
        monkeypatch.setenv("PATH", "/nowhere")
    return request.param


@st.composite
def drawn_cells(draw):
    """Nodes and concat of any cell of up to 7 nodes."""
    nodes = []
    for i in range(draw(st.integers(1, 7))):
        sources = draw(st.lists(st.integers(0, i + 1), min_size=2, max_size=2, unique=True))
        nodes.append([(draw(st.sampled_from(RNN_OPS + CNN_OPS)), source) for source in sources])
    concat = draw(st.lists(st.integers(2, len(nodes) + 1), min_size=1, unique=True))
    return nodes, concat


# Cells


def test_draw_genotype_draws_the_cells_that_exist(tmp_path, renderer):
    paths = cells.draw_genotype(BOTH, tmp_path / "both")
    assert [path.name for path in paths] == ["normal.png", "reduce.png", "rnn.png"]
    assert names(tmp_path / "both") == ["normal.png", "reduce.png", "rnn.png"]
    for path in paths:
        assert_picture(path)
    cells.draw_genotype(BUILT_IN["darts_v2"], tmp_path / "cnn")
    assert names(tmp_path / "cnn") == ["normal.png", "reduce.png"]


def test_svg_shows_every_op_and_any_title(tmp_path, renderer):
    title = r'<b>50 % & "fold" \N \G</b> $x$'
    path = cells.draw_cell(BOTH.normal, BOTH.normal_concat, tmp_path / "cell.svg", title)
    assert names(tmp_path) == ["cell.svg"]
    texts = [
        "".join(element.itertext())
        for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    ]
    ops = [op for node in BOTH.normal for op, _ in node]
    assert sorted(text for text in texts if text in CNN_OPS) == sorted(ops)
    assert title in [text.replace("\xa0", " ") for text in texts]
    assert {"0", "1", "2", "3"} <= set(texts)


def test_edges_run_from_source_through_op_to_node():
    source = cells.cell_graph(BOTH.rnn, (3,), "rnn").source
    assert '"c_{k-2}" -> "c_{k-2}-lstm_1-0-0"' in source
    assert '"0-lstm_1-1-0" -> 1' in source
    assert '1 -> "c_{k}"' in source
    assert '0 -> "c_{k}"' not in source


@settings(max_examples=30)
@given(drawn_cells())
def test_boxes_do_not_overlap_and_lines_cross_none(cell):
    """Of the drawing by Matplotlib. A line is two straight pieces and, between them, a turn of the width SPACE."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr(cells, "_plot_line", lambda _, *line, arrow=False: lines.append(line))
        figure = cells.plot_cell(*cell, "any cell")
    boxes = [
        patch.get_extents().transformed(figure.axes[0].transData.inverted())
        for patch in figure.axes[0].patches
    ]
    nodes, concat = cell
    assert len(boxes) == 3 + 3 * len(nodes)
    assert len(lines) == 4 * len(nodes) + len(concat)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.axes[0].viewLim.containsy(y) for box in boxes for y in (box.y0, box.y1))
    assert all(figure.axes[0].viewLim.containsx(x) for box in boxes for x in (box.x0, box.x1))
    for (x0, y0), turn, (x1, y1), _ in lines:
        ends = [box for box in boxes if box.contains(x0, y0) or box.padded(0.01).contains(x1, y1)]
        assert len(ends) == 2
        others = [box for box in boxes if box not in ends]
        pieces = Bbox([(x0, y0), (turn, y0)]), Bbox([(turn + cells.SPACE, y1), (x1, y1)])
        assert not any(box.overlaps(piece) for box in others for piece in pieces if piece.x0 < piece.x1)
        assert not any(box.x0 < turn + cells.SPACE - 0.01 and turn + 0.01 < box.x1 for box in others)


@pytest.mark.parametrize("op", sorted({*CNN_OPS, *RNN_OPS} - {"none"}))
def test_every_op_has_the_colour_of_its_family(op):
    wanted = {
        "max": "pool",
        "avg": "pool",
        "sep": "conv",
        "dil": "conv",
        "skip": "skip",
        "lstm": "lstm",
        "rnn": "rnn",
    }
    assert cells.op_family(op) == ("attention" if "att" in op else wanted[op.split("_")[0]])
    assert cells.op_family(op) in cells.FAMILIES


def test_cell_is_drawn_if_dot_fails(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise graphviz.CalledProcessError(1, ["dot"])

    monkeypatch.setattr(graphviz.Digraph, "pipe", fail)
    assert cells.draw_cell(BOTH.rnn, (2,), tmp_path / "x.png", "x") == tmp_path / "x.png"
    assert_picture(tmp_path / "x.png")


# Heat maps


@pytest.mark.parametrize("classes", [["a", "b"], ["angry", "happy", "sad"], ["contemptuous"] * 7 + ["$\\x$"]])
def test_confusion_matrix_is_drawn(tmp_path, classes):
    counts = np.arange(len(classes) ** 2).reshape(len(classes), -1)
    counts[0] = 0  # a class without test utterances must not divide by zero
    with np.errstate(all="raise"):
        plots.draw_confusion(counts.tolist(), classes, tmp_path / "c.png", "50 $ and \\frac{")
    assert_picture(tmp_path / "c.png")
    assert names(tmp_path) == ["c.png"]


@pytest.mark.parametrize("ops", [CNN_OPS, RNN_OPS, ("lstm_1", "none")])
@pytest.mark.parametrize("nodes", [1, 4])
def test_alphas_are_drawn(tmp_path, ops, nodes):
    plots.draw_alphas(softmaxed(ops, nodes), ops, tmp_path / "a.png", "alphas")
    assert_picture(tmp_path / "a.png")
    assert names(tmp_path) == ["a.png"]


def test_many_alphas_and_nan_are_drawn(tmp_path):
    weights = softmaxed(RNN_OPS, nodes=8)
    weights[2][1, 3] = np.nan
    plots.draw_alphas(weights, RNN_OPS, tmp_path / "a.svg", "alphas")
    ElementTree.parse(tmp_path / "a.svg")


def test_drawing_imports_neither_pyplot_nor_torch():
    code = "import sys, visualize; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# The command


def test_command_draws_a_file(tmp_path):
    BOTH.save(tmp_path / "genotype.json")
    done = command(tmp_path / "genotype.json", "--out", tmp_path / "plots")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [
        str(tmp_path / "plots" / name) for name in ("normal.png", "reduce.png", "rnn.png")
    ]
    for line in done.stdout.split():
        assert_picture(line)


def test_command_draws_a_string_form_without_dot(tmp_path):
    done = command(str(BOTH), "--out", tmp_path, PATH="/nowhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path) == ["normal.png", "reduce.png", "rnn.png"]
    for line in done.stdout.split():
        assert_picture(line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_genotype"], "no_such_genotype"),
        (["Genotype(normal=__import__('os').system('touch owned'))"], "Call is not allowed"),
        (["Genotype(normal='\\d', normal_concat=[2], reduce=1, reduce_concat=2)"], "not a list of nodes"),
        (['{"version":\n 7}'], "unknown version 7"),
        ([], "GENOTYPE is missing"),
        (["darts_v2", "--nonsense"], "--nonsense"),
        (["darts_v2", "--out", "taken/deeper"], "cannot write to 'taken/deeper'"),
    ],
)
def test_command_prints_one_line_for_bad_input(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("kept")
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert names(tmp_path) == ["taken"]
    assert Path("taken").read_text() == "kept"


def test_run_prints_a_line_per_picture(tmp_path, capsys):
    visualize.run(VisualizeConfig(genotype="darts_v2", out=tmp_path))
    assert capsys.readouterr().out.count("\n") == 2
