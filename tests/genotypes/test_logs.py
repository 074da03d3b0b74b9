"""Genotypes in logs and Python files: the last one is read, a line says which, and nothing is evaluated."""

import re
import time
from pathlib import Path

import pytest
import torch

import search
import visualize
from augment import find_genotype
from cli import parse as parse_flags
from config import AugmentConfig, SearchConfig, VisualizeConfig
from genotypes import BUILT_IN, Genotype, parse, read_source
from models.architecture import SearchedArchitecture
from models.joint_network import Size
from plots import cells
from utils import UserError

V2 = BUILT_IN["darts_v2"]
JOINT = BUILT_IN["cnn_lstm"]
PT_DARTS = str(V2).replace(", rnn=[], rnn_concat=[]", "")


def flat(genotype: Genotype) -> str:
    """The string form of quark0/darts, whose older versions print `range` as a list."""
    parts = []
    for cell in ("normal", "reduce"):
        edges = [edge for node in getattr(genotype, cell) for edge in node]
        parts.append(f"{cell}={edges}, {cell}_concat={list(getattr(genotype, f'{cell}_concat'))}")
    return f"Genotype({', '.join(parts)})"


SMALL = Genotype(
    normal=[[("sep_conv_3x3", 1), ("skip_connect", 0)]],
    normal_concat=[2],
    reduce=[[("max_pool_3x3", 0), ("max_pool_3x3", 1)]],
    reduce_concat=[2],
)
QUARK0_LOG = f"""2026-05-04 10:12:12,904 gpu device = 0
2026-05-04 10:12:13,000 args = Namespace(arch_learning_rate=0.0003, genotype='Genotype')
2026-05-04 10:12:13,003 genotype = {flat(SMALL)}
2026-05-04 10:12:13,120 train 000 2.4e+00 12.5 50.0
2026-05-04 11:40:02,881 genotype = {flat(V2)}
2026-05-04 11:40:03,007 valid_acc 63.1
"""
PT_DARTS_LOG = f"""05/04 10:12:13 AM | Logger is set - training start
05/04 10:12:13 AM | ####### ALPHA #######
05/04 10:12:13 AM | # Alpha - normal
05/04 10:14:13 AM | genotype = {PT_DARTS.replace("sep_conv_3x3", "dil_conv_5x5")}
05/04 10:18:13 AM | Final best Prec@1 = 84.2%
05/04 10:18:13 AM | Best Genotype = {PT_DARTS}
"""
PYTHON = """from collections import namedtuple

Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')

NASNet = Genotype(
    normal=[('sep_conv_5x5', 1), ('conv_7x1_1x7', 0)],
    normal_concat=[2],
    reduce=[('sep_conv_7x7', 1), ('sep_conv_5x5', 0)],
    reduce_concat=[2],
)
DARTS_V2 = Genotype(
    normal = [  # the ")" of node 0
        ('sep_conv_3x3', 0), ("skip_connect", 0)],
    normal_concat = list(range(2, 3)),
    reduce = [('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat = (2,))
# OLD = Genotype(normal=[])
DARTS = DARTS_V2
"""
ONE_SOURCE = Genotype(
    normal=[[("sep_conv_3x3", 0), ("skip_connect", 0)]],
    normal_concat=[2],
    reduce=[[("max_pool_3x3", 0), ("max_pool_3x3", 1)]],
    reduce_concat=[2],
)
OWN_LOG = f"""2026-05-04 10:12:13,003 search    runs/demo/search
2026-05-04 10:12:15,003 epoch   1  train/loss 1.2
2026-05-04 10:12:16,003\x20
{JOINT}

2026-05-04 10:12:16,011 genotype  runs/demo/search/genotype.json
"""
FILES = {
    "the log of quark0": (QUARK0_LOG, V2, "line 5 is taken, the last of 2 genotypes"),
    "the log of pt.darts": (PT_DARTS_LOG, V2, "line 6 is taken, the last of 2 genotypes"),
    "the same of Windows": (
        PT_DARTS_LOG.replace("\n", "\r\n"),
        V2,
        "line 6 is taken, the last of 2 genotypes",
    ),
    "a Python file": (PYTHON, ONE_SOURCE, "line 11 (DARTS_V2) is taken, the last of 2 genotypes"),
    "the log of search.py": (OWN_LOG, JOINT, "line 4 is taken"),
    "one assignment": (f"BEST = {PT_DARTS}\n", V2, "line 1 (BEST) is taken"),
    "two on one line": (f"{flat(SMALL)} -> {flat(V2)}", V2, "line 1 is taken, the last of 2 genotypes"),
}


@pytest.mark.parametrize("case", FILES)
def test_the_last_genotype_of_a_text_is_read(case: str, tmp_path: Path, monkeypatch) -> None:
    text, genotype, place = FILES[case]
    monkeypatch.chdir(tmp_path)  # a long path is abbreviated in messages
    Path("log.txt").write_bytes(text.encode())
    source = read_source("log.txt")
    assert source == (genotype, None, f"genotype file 'log.txt': {place}")
    assert read_source(text) == (genotype, None, f"genotype string: {place}")


def test_the_log_that_a_search_writes_is_read(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    words = ["--config", "tiny.yaml", "--name", "logged", "--strategy", "random"]
    genotype = search.run(parse_flags(SearchConfig, words))
    assert read_source("runs/logged/search/search.log").genotype == genotype


@pytest.mark.parametrize("text", [PT_DARTS, f"\n {PT_DARTS} \n", str(JOINT)])
def test_a_text_that_is_one_genotype_needs_no_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text(text)
    assert read_source(str(path)).place == read_source(text).place == ""


def test_the_commands_say_which_genotype_they_take(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # a long path is abbreviated in messages
    path = Path("search.log")
    path.write_text(QUARK0_LOG)
    note = f"note: genotype file {str(path)!r}: line 5 is taken, the last of 2 genotypes\n"
    assert find_genotype(parse_flags(AugmentConfig, ["--genotype", str(path)]))[0] == V2
    assert capsys.readouterr().err == note
    visualize.run(VisualizeConfig(genotype=str(path), out=tmp_path / "plots"))
    assert capsys.readouterr().err == note


def test_parts_may_be_given_by_position() -> None:
    nodes = [[("skip_connect", 0), ("skip_connect", 1)]]
    assert parse(f"Genotype({nodes}, [2], {nodes}, reduce_concat=[2])") == Genotype(nodes, [2], nodes, [2])
    with pytest.raises(UserError, match="a part is given twice"):
        parse(f"Genotype({nodes}, [2], {nodes}, [2], normal={nodes})")


@pytest.mark.parametrize("concat", ["range(2, 6)", "[2, 3, 4, 5]", "(2, 3, 4, 5)", "list(range(2, 6))",
                                    "tuple(range(2, 6))", "list([2, 3, 4, 5])"])  # fmt: skip
def test_a_range_may_be_a_list(concat: str) -> None:
    assert parse(PT_DARTS.replace("range(2, 6)", concat)) == V2


WRONG = {
    "another space": ("a\nG = Genotype(recurrent=[('tanh', 0)], concat=range(1, 9))", 2, "missing normal, "),
    "an op of another space": (
        PYTHON.partition("DARTS_V2")[0],
        5,
        "normal, node 0, edge 1: unknown op 'conv_7x1",
    ),
    "no reduce cell": ("\n\nx = Genotype(normal=[], normal_concat=[])\n", 3, "missing reduce, reduce_concat"),
    "an odd number of edges": (
        f"x = {flat(V2)}".replace("('sep_conv_3x3', 0), ", "", 1),
        1,
        "7 edges in a flat",
    ),
    "a variable": (
        "x = 1\nreturn Genotype(normal=gene,\n normal_concat=c)",
        2,
        "line 2, column 17: Name is not",
    ),
    "a variable below": (
        "\n\nx = Genotype(normal=[],\n normal_concat=c)",
        3,
        "line 4, column 16: Name is not",
    ),
    "a call": ("x = Genotype(normal=open('owned', 'w'), normal_concat=[2])", 1, "Call is not allowed"),
    "a call in list": ("x = Genotype(normal=list(open('owned', 'w')))", 1, "Call is not allowed"),
    "cut off": (f"x\ngenotype = {PT_DARTS[:200]}\nmore", 2, "cannot be read"),
    "cut off at the end": (f"x\ngenotype = {PT_DARTS[:200]}", 2, "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_names_the_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, line, message = WRONG[case]
    monkeypatch.chdir(tmp_path)
    Path("g.log").write_text(text)
    with pytest.raises(
        UserError, match=rf"^genotype file 'g\.log', line {line}: .*{re.escape(message)}"
    ) as error:
        read_source("g.log")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["g.log"]


@pytest.mark.parametrize(
    "text", ["no cells", "class Genotype(NamedTuple): pass", "# x = Genotype(a=1)", "Genotype"]
)
def test_a_text_without_a_genotype_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "g.log"
    path.write_text(text)
    with pytest.raises(UserError, match=r"g\.log': not valid JSON .* and no Genotype\(\.\.\.\) is in it"):
        read_source(str(path))


def test_a_json_file_is_json_whatever_its_speakers_are_called(tmp_path: Path) -> None:
    speakers = {"dataset": "d", "corpus": "c", "speakers": ["Genotype(normal=[])"]}
    V2.save(tmp_path / "g.json", speakers)
    assert read_source(str(tmp_path / "g.json")) == (V2, speakers, "")


def test_a_key_given_twice_in_json_is_refused(tmp_path: Path) -> None:
    V2.save(tmp_path / "g.json")
    twice = (tmp_path / "g.json").read_text().replace("{", '{"normal": [], ', 1)
    (tmp_path / "g.json").write_text(twice)
    for text in (twice, str(tmp_path / "g.json")):
        with pytest.raises(UserError, match="a key is given twice"):
            read_source(text)


@pytest.mark.parametrize(
    "text", ["x Genotype(" * 300_000, "a" * 3_000_000 + " Genotype(", "(" * 10**6 + "Genotype(["]
)
def test_a_large_text_is_read_in_little_time(text: str, tmp_path: Path) -> None:
    (tmp_path / "g.log").write_text(text)
    start = time.process_time()
    with pytest.raises(UserError):
        read_source(str(tmp_path / "g.log"))
    assert time.process_time() - start < 5


def test_a_node_may_have_two_edges_from_one_state(tmp_path: Path) -> None:
    twin = [[("skip_connect", 1), ("skip_connect", 1)], [("sep_conv_3x3", 2), ("max_pool_3x3", 2)]]
    genotype = Genotype.of_nodes(twin, twin, [[("lstm_1", 0), ("rnn_1", 0)]])
    assert parse(str(genotype)) == Genotype.from_json(genotype.to_json()) == genotype
    network = SearchedArchitecture(
        genotype, Size(layers=3, init_channels=2, rnn_layers=1, rnn_channels=4)
    ).build(2)
    assert network(torch.randn(2, 1, 8, 8)).isfinite().all()
    source = cells.cell_graph(genotype.normal, genotype.normal_concat, "twins").source
    assert source.count("label=skip_connect") == 2
    assert all(path.exists() for path in cells.draw_genotype(genotype, tmp_path))
