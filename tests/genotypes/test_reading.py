"""Genotypes: every form can be read back, every broken rule has its message, and no text is evaluated."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.speakers import SpeakerSet
from genotypes import (
    BUILT_IN,
    CNN_OPS,
    PUBLISHED_CNN_OPS,
    RNN_OPS,
    RNN_SCOPES,
    Genotype,
    Source,
    discretise,
    load_genotype,
    parse,
    read_source,
    resolve,
)
from training.given_genotypes import parse_speakers
from utils import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
V2 = BUILT_IN["darts_v2"]
quick = settings(max_examples=60)


@st.composite
def cells(draw, ops, smallest=1):
    nodes = []
    for i in range(draw(st.integers(smallest, 6))):
        sources = draw(st.lists(st.integers(0, i + 1), min_size=2, max_size=2, unique=True))
        nodes.append(tuple((draw(st.sampled_from(ops[:-1])), source) for source in sources))
    states = st.integers(2, len(nodes) + 1)
    concat = draw(st.lists(states, min_size=1, unique=True)) if nodes else []
    return tuple(nodes), tuple(concat)


@st.composite
def genotypes(draw):
    normal, reduce, rnn = draw(cells(CNN_OPS)), draw(cells(CNN_OPS)), draw(cells(RNN_OPS, smallest=0))
    return Genotype(*normal, *reduce, *rnn)


def only_user_error(read, value):
    """The genotype, or None for a `UserError` with a short message on one line; other exceptions fail the test."""
    try:
        return read(value)
    except UserError as error:
        message = str(error)
    assert len(message) < 600
    assert "\n" not in message
    return None


# Reading back what was written


@quick
@given(genotypes())
def test_every_form_can_be_read_back(genotype):
    through_text = json.loads(json.dumps(genotype.to_json()))
    assert Genotype.from_json(through_text) == genotype
    assert parse(str(genotype)) == genotype
    assert resolve(str(genotype)) == genotype
    assert resolve(json.dumps(through_text)) == genotype
    assert hash(parse(str(genotype))) == hash(genotype)


@settings(quick, max_examples=15)
@given(genotypes())
def test_files_can_be_read_back(genotype):
    with tempfile.TemporaryDirectory() as folder:
        path, text = Path(folder, "deep", "g.json"), Path(folder, "g.txt")
        genotype.save(path)
        text.write_text(f"\n  {genotype}\n")
        assert load_genotype(path) == resolve(str(path)) == resolve(str(text)) == genotype
        assert [entry.name for entry in path.parent.iterdir()] == ["g.json"]


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(quick, max_examples=30)
@given(
    genotypes(),
    st.builds(SpeakerSet, dataset=texts, corpus=texts, speakers=st.lists(texts, max_size=4).map(tuple)),
)
def test_file_may_hold_the_speakers_of_the_search(genotype, speakers):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "g.json")
        plain = speakers.to_json()
        genotype.save(path, plain)
        assert read_source(str(path)) == read_source(path.read_text()) == Source(genotype, plain)
        assert parse_speakers(plain, "g.json") == speakers
        assert load_genotype(path) == resolve(str(path)) == genotype
        assert json.loads(path.read_text()) == genotype.to_json() | {"searched_on": plain}
        genotype.save(path)
        assert read_source(str(path)) == read_source(str(genotype)) == Source(genotype, None)


def test_file_holds_the_speakers_of_a_large_corpus(tmp_path):
    names = tuple(f"MSP-PODCAST_{n:06}" for n in range(100_000))
    speakers = SpeakerSet(dataset="d", corpus="c", speakers=names)
    V2.save(tmp_path / "g.json", speakers.model_dump())
    assert parse_speakers(read_source(str(tmp_path / "g.json")).searched_on, "g.json") == speakers


def test_json_has_the_documented_keys():
    value = BUILT_IN["cnn_lstm"].to_json()
    assert list(value) == [
        "version",
        "normal",
        "normal_concat",
        "reduce",
        "reduce_concat",
        "rnn",
        "rnn_concat",
    ]
    assert value["version"] == 1
    assert value["normal"][3] == [["skip_connect", 0], ["dil_conv_3x3", 2]]
    assert value["normal_concat"] == [2, 3, 4, 5]
    assert value["rnn"][0] == [["lstm_1", 0], ["skip_connect", 1]]


def test_string_form_of_emodarts_is_written():
    assert str(V2).startswith("Genotype(normal=[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], [")
    assert "normal_concat=range(2, 6), reduce=[[" in str(V2)
    assert str(V2).endswith("reduce_concat=range(2, 6), rnn=[], rnn_concat=[])")


def test_string_forms_of_pt_darts_and_quark0_are_read():
    pt_darts = str(V2).replace(", rnn=[], rnn_concat=[]", "")
    assert parse(pt_darts) == V2
    flat = ", ".join(f"{cell}={[e for n in getattr(V2, cell) for e in n]}, {cell}_concat=[2, 3, 4, 5]"
                     for cell in ("normal", "reduce"))  # fmt: skip
    assert parse(f"Genotype({flat})") == V2
    with pytest.raises(UserError, match="normal: 7 edges in a flat list"):
        parse(f"Genotype({flat})".replace("('sep_conv_3x3', 0), ", "", 1))


def test_file_has_precedence_over_a_built_in_name(tmp_path, monkeypatch):
    assert resolve(" darts_v2 ") is V2
    monkeypatch.chdir(tmp_path)
    BUILT_IN["cnn_lstm"].save("darts_v2")
    assert resolve("darts_v2") == BUILT_IN["cnn_lstm"]


def test_scopes_of_rnn_ops():
    assert set(RNN_SCOPES) == {"all", "lstm", "rnn", "lstm_att", "rnn_att"}
    assert RNN_SCOPES["all"] == RNN_OPS
    assert RNN_SCOPES["lstm"] == ("lstm_1", "lstm_2", "lstm_3", "lstm_4", "skip_connect", "none")
    assert RNN_SCOPES["rnn_att"] == ("rnn_att_1", "rnn_att_2", "skip_connect", "none")
    assert len(RNN_OPS) == 14
    assert len(PUBLISHED_CNN_OPS) == 8
    assert set(CNN_OPS) == {*PUBLISHED_CNN_OPS, "sep_conv_7x1", "sep_conv_1x7"}
    assert CNN_OPS[-1] == PUBLISHED_CNN_OPS[-1] == "none"


# Broken rules

DEFECTS = {
    "unknown op": (
        "normal",
        1,
        0,
        ["conv_9x9", 0],
        r"normal, node 1, edge 0: unknown op 'conv_9x9'.*sep_conv_3x3",
    ),
    "none": ("reduce", 0, 1, ["none", 1], r"reduce, node 0, edge 1: unknown op 'none'"),
    "rnn op in cnn": ("normal", 0, 0, ["lstm_1", 0], r"normal, node 0, edge 0: unknown op 'lstm_1'"),
    "cnn op in rnn": (
        "rnn",
        1,
        1,
        ["sep_conv_3x3", 0],
        r"rnn, node 1, edge 1: unknown op 'sep_conv_3x3'.*rnn_att_2",
    ),
    "op no text": ("rnn", 0, 0, [["lstm_1"], 0], r"rnn, node 0, edge 0: unknown op \['lstm_1'\]"),
    "own state": ("normal", 2, 1, ["skip_connect", 4], r"normal, node 2, edge 1: source 4 .*0 to 3"),
    "negative": ("normal", 2, 1, ["skip_connect", -1], r"source -1 is not an earlier state"),
    "bool": ("normal", 2, 1, ["skip_connect", True], r"source True is not an earlier state"),
    "float": ("normal", 2, 1, ["skip_connect", 1.0], r"source 1\.0 is not an earlier state"),
    "no pair": (
        "normal",
        2,
        1,
        ["skip_connect"],
        r"normal, node 2, edge 1: \['skip_connect'\] is not a pair",
    ),
    "three edges": ("normal", 2, None, [["skip_connect", 0]] * 3, r"normal, node 2: .* exactly two edges"),
    "text as node": ("normal", 2, None, "ab", r"normal, node 2: 'ab' is not a list of exactly two edges"),
    "text as cell": ("normal", None, None, "ab", r"normal: 'ab' is not a list of nodes"),
    "no nodes": ("normal", None, None, [], r"normal: no nodes"),
    "input in concat": (
        "normal_concat",
        None,
        None,
        [1, 2],
        r"normal_concat: 1 is not the state of a node.*2 to 5",
    ),
    "beyond in concat": (
        "rnn_concat",
        None,
        None,
        [2, 4],
        r"rnn_concat: 4 is not the state of a node.*2 to 3",
    ),
    "bool in concat": ("normal_concat", None, None, [True], r"normal_concat: True is not"),
    "twice in concat": (
        "normal_concat",
        None,
        None,
        [2, 3, 2],
        r"normal_concat: \[2, 3, 2\] names a state twice",
    ),
    "empty concat": ("reduce_concat", None, None, [], r"reduce_concat: empty"),
    "concat no list": ("reduce_concat", None, None, {"2": 3}, r"reduce_concat: .* is not a list of states"),
    "concat without nodes": (
        "rnn",
        None,
        None,
        [],
        r"rnn_concat: 2 is not the state of a node; rnn has no nodes",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_error_names_the_place_of_a_defect(name):
    part, node, edge, wrong, message = DEFECTS[name]
    value = BUILT_IN["cnn_lstm"].to_json()
    if node is None:
        value[part] = wrong
    elif edge is None:
        value[part][node] = wrong
    else:
        value[part][node][edge] = wrong
    with pytest.raises(UserError, match=message):
        Genotype.from_json(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "unknown version 2"),
        ({"version": True}, "unknown version True"),
        ({"version": "1"}, "unknown version '1'"),
        ({"version": None}, "unknown version None"),
        ({"extra": 1}, "unknown part 'extra'"),
        ({"searched_on": {}}, "unknown part 'searched_on'"),  # a key of the file, not of the genotype
    ],
)
def test_unknown_versions_and_keys_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        Genotype.from_json(V2.to_json() | change)


@pytest.mark.parametrize("key", V2.to_json())
def test_error_names_a_missing_key(key):
    value = V2.to_json()
    del value[key]
    with pytest.raises(UserError, match="no version" if key == "version" else f"missing {key}"):
        Genotype.from_json(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"version": 1' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
        (b" " * 4_000_001, "larger than"),
        (b"[]", "not a JSON object"),
        (b"Genotype(", "cannot be read"),
        (b"", "not valid JSON"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "g.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        resolve(str(path))
    assert only_user_error(load_genotype, path) is None


SPEAKERS = {"dataset": "demo", "corpus": "demo", "speakers": ["F01"]}


def read_speakers(text):
    """The speakers of a genotype file, as augment.py reads them."""
    return parse_speakers(read_source(text).searched_on, text)


@pytest.mark.parametrize(
    "wrong",
    [None, [], {}, "F01", 3, [SPEAKERS], SPEAKERS | {"speakers": "F01"}, SPEAKERS | {"speakers": [1]},
     SPEAKERS | {"speakers": {"F01": 1}}, SPEAKERS | {"speakers": [["F01"]]}, SPEAKERS | {"speakers": ["\ud800"]},
     SPEAKERS | {"speakers": ["S"] * 700_000 + [2]}, SPEAKERS | {"speakers": ["S" * 1_000_000, None]},
     SPEAKERS | {"corpus": None}, SPEAKERS | {"dataset": 7}, SPEAKERS | {"more" * 100_000: 1},
     SPEAKERS | {"\x1b[2J\n": 1}, {"dataset": "demo", "corpus": "demo"}, float("nan")],
    ids=lambda wrong: repr(wrong)[:50],
)  # fmt: skip
def test_damaged_speakers_are_refused(tmp_path, wrong):
    path = tmp_path / "g.json"
    path.write_text(json.dumps(V2.to_json() | {"searched_on": wrong}))
    with pytest.raises(UserError, match=r"g\.json': searched_on (is|must have) "):
        read_speakers(str(path))
    assert only_user_error(read_speakers, str(path)) is None


def test_paths_that_are_not_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load_genotype(tmp_path / "absent.json")
    with pytest.raises(UserError, match="directory"):
        load_genotype(tmp_path)
    with pytest.raises(UserError, match=r"is not known: give a file.*darts_v2"):
        resolve(str(tmp_path))
    for text in ("", "\0", "x" * 100_000, "\ud800", "a/" * 9000):
        with pytest.raises(UserError, match="is not known"):
            resolve(text)


# Hostile text

HOSTILE = [
    "Genotype(normal=__import__('os').system('touch owned'))",
    "Genotype(normal=[open('owned', 'w')], normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=(lambda: 1)(), normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=[x for x in [1]], normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=[], normal_concat=range(0, 10**9), reduce=[], reduce_concat=[2])",
    "Genotype(normal=[], normal_concat=range(0, 999999999999), reduce=[], reduce_concat=[2])",
    "Genotype(normal=[], normal_concat=range(2, 6, 1), reduce=[], reduce_concat=[2])",
    "Genotype(normal=[], normal_concat=range(-2, 6), reduce=[], reduce_concat=[2])",
    "Genotype(normal=[], normal_concat=range(*[2, 6]), reduce=[], reduce_concat=[2])",
    "Genotype(normal=[*[1]], normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=[1]*999999999, normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=True, normal_concat=None, reduce=b'', reduce_concat=...)",
    "Genotype(normal=" + "9" * 90_000 + ", normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=0x" + "f" * 90_000 + ", normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(normal=[], normal=[], normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(**{'normal': []})",
    "Genotype([], [2], [], [2])",
    "Genotype(normal='\\d', normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype(recurrent=[('tanh', 0)], concat=range(1, 9))",
    "Genotype(normal=" + "[" * 150 + "]" * 150 + ", normal_concat=[2], reduce=[], reduce_concat=[2])",
    "Genotype.mro()",
    "evil.Genotype(normal=[])",
    "(" * 50_000,
    "-" * 99_000 + "1",
    "Genotype(normal=a" + ".b" * 49_000 + ")",
    "Genotype(" + "1+" * 49_000 + "1)",
    "Genotype(" + "not " * 20_000 + "1)",
    "Genotype(normal=" + "[" * 200_000,
    "Genotype(\0)",
    "Genotype('\ud800')",
    "Genotype()\nimport os",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40].encode("ascii", "replace").decode())
def test_hostile_strings_are_not_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (parse, resolve):
        assert only_user_error(read, text) is None
    assert not os.listdir(tmp_path)


words = st.sampled_from(["Genotype(", "normal=", "normal_concat=", "reduce", "range(", "[", "]", "(", ")", ", ", "'",
                         "2", "6", "-", "skip_connect", "{", "}", '"version": 1', "\\", "\n", "lambda"])  # fmt: skip


@quick
@given(
    st.one_of(
        st.text(), st.lists(words, max_size=40).map("".join), st.lists(words).map(lambda w: "{" + "".join(w))
    )
)
def test_random_text_gives_a_genotype_or_a_user_error(text):
    for read in (parse, resolve):
        only_user_error(read, text)


@settings(quick, max_examples=40)
@given(st.one_of(st.binary(max_size=200), st.lists(words, max_size=40).map(lambda w: "".join(w).encode())))
def test_random_bytes_give_a_genotype_or_a_user_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "g")
        path.write_bytes(content)
        for read in (resolve, load_genotype):
            only_user_error(read, str(path))


plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(CNN_OPS)
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@quick
@given(genotypes(), plain, st.data())
def test_damaged_genotype_is_refused_or_valid(genotype, wrong, data):
    """With any JSON value in any place, the genotype is refused or can still be read back."""
    value = genotype.to_json()
    spot, key = value, data.draw(st.sampled_from(sorted(value)))
    while isinstance(spot[key], list) and spot[key] and data.draw(st.booleans()):
        spot, key = spot[key], data.draw(st.integers(0, len(spot[key]) - 1))
    spot[key] = wrong
    found = only_user_error(Genotype.from_json, value)
    assert found is None or parse(str(found)) == found


@quick
@given(plain, st.sampled_from([None, *SPEAKERS]))
def test_damaged_speakers_are_refused_or_valid(wrong, key):
    value = V2.to_json() | {"searched_on": SPEAKERS | {key: wrong} if key else wrong}
    found = only_user_error(read_speakers, json.dumps(value))
    assert found is None or found.to_json() == value["searched_on"]


def test_importing_genotypes_imports_neither_torch_nor_pydantic():
    code = "import sys, genotypes; sys.exit(bool({'torch', 'pydantic'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Discretisation


def brute_force(weights, ops, without_none=False):
    """The same by plain loops, without sorting or NumPy."""
    nodes = []
    for rows in weights:
        best = []
        for source, row in enumerate(rows):
            op, weight = None, -1.0
            for name, value in zip(ops, row, strict=True):
                if name != "none" and value > weight:
                    op, weight = name, value
            if without_none:
                total = sum(value for name, value in zip(ops, row, strict=True) if name != "none")
                weight /= max(total, 1e-300)
            best.append((op, source, weight))
        first = best[0]
        for edge in best:
            first = edge if edge[2] > first[2] else first
        rest = [edge for edge in best if edge[1] != first[1]]
        second = rest[0]
        for edge in rest:
            second = edge if edge[2] > second[2] else second
        nodes.append(((first[0], first[1]), (second[0], second[1])))
    return tuple(nodes)


@st.composite
def alphas(draw):
    ops = draw(st.sampled_from([CNN_OPS, *RNN_SCOPES.values()]))
    ops = draw(st.permutations(ops))
    coarse = st.integers(0, 4).map(lambda n: n / 4)  # few values, so that ties are common
    values = draw(st.sampled_from([coarse, st.floats(0, 1)]))
    weights = [draw(st.lists(st.lists(values, min_size=len(ops), max_size=len(ops)), min_size=i + 2, max_size=i + 2))
               for i in range(draw(st.integers(1, 4)))]  # fmt: skip
    return weights, ops


@quick
@given(alphas())
def test_discretise_agrees_with_brute_force(drawn):
    weights, ops = drawn
    expected = brute_force(weights, ops)
    assert discretise(weights, ops) == expected
    assert discretise([np.array(rows) for rows in weights], tuple(ops)) == expected
    assert discretise(weights, ops, "without_none") == brute_force(weights, ops, without_none=True)


@quick
@given(st.integers(0, 2**32 - 1))
def test_discretised_cells_form_a_genotype(seed):
    rng = np.random.default_rng(seed)
    weights = [[rng.dirichlet(np.ones(len(ops)), i + 2) for i in range(4)] for ops in (CNN_OPS, RNN_OPS)]
    cnn, rnn = map(discretise, weights, (CNN_OPS, RNN_OPS))
    genotype = Genotype(cnn, range(2, 6), cnn, range(2, 6), rnn, range(2, 6))
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


def test_without_none_a_decided_edge_is_stronger_than_one_that_none_does_not_weaken():
    rows = [[0.30, 0.20, 0.50], [0.49, 0.47, 0.04], [0.46, 0.45, 0.09]]
    nodes = [rows[:2], rows]
    assert discretise(nodes, ("lstm_1", "rnn_1", "none"))[1] == (("lstm_1", 1), ("lstm_1", 2))
    assert discretise(nodes, ("lstm_1", "rnn_1", "none"), "without_none")[1] == (("lstm_1", 0), ("lstm_1", 1))


def test_none_is_never_chosen_and_ties_go_to_the_lower_source():
    even = [[[0.1, 0.1, 0.8]] * 3]
    assert discretise([[[0.1, 0.1, 0.8]] * 2], ("skip_connect", "lstm_1", "none")) == (
        (("skip_connect", 0), ("skip_connect", 1)),
    )
    with pytest.raises(ValueError, match="node 0: expected 2 edges x 3 finite weights"):
        discretise(even, ("skip_connect", "lstm_1", "none"))
    with pytest.raises(ValueError, match="finite"):
        discretise([[[float("nan"), 0.1, 0.8]] * 2], ("skip_connect", "lstm_1", "none"))
