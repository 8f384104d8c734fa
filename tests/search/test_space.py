"""What a space holds: texts of ranges, axes from Python and files, unions, shards."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.cli.simulate import command
from tensorcast.errors import InputError
from tensorcast.options import KNOWN, LISTS, SHARES, SWITCHES, WHOLE
from tensorcast.search.axes.ranges import numbers
from tensorcast.search.axes.space import Shard, Space

# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,4,8", [1, 2, 4, 8]),
        ("1:512:x2", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
        ("1024:4096:1024", [1024, 2048, 3072, 4096]),
        ("1:8", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("1:100:x3", [1, 3, 9, 27, 81]),
        ("5:5", [5]),
        ("4:9:x1.5", [4, 6, 9]),
        ("1, 2 ,8:64:x2,none", [1, 2, 8, 16, 32, 64, None]),
    ],
)
def test_a_text_of_whole_numbers(text: str, values: list) -> None:
    assert list(numbers(text, whole=True)) == values


def test_steps_of_fractions_are_exact() -> None:
    assert numbers("0.1:0.5:0.1", whole=False) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert len(numbers("0.7:0.95:0.01", whole=False)) == 26


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8:1", "empty"), ("1:8:x1", "above 1"), ("1:8:x0", "above 1"), ("1:8:0", "above 0"), ("1:8:-1", "above 0"),
        ("0:8:x2", "above 0"), ("1:9:x2:3", "not a range"), ("", "empty"), ("1,,2", "empty"), ("1,", "empty"),
        ("abc", "not a whole number"), ("1.5", "not a whole number"), ("1:9:x1.5", "1.5, which is not a whole"),
        ("1:8:x", "not a number"), ("1_000", "not a whole number"), ("٣", "not a whole number"),
        ("1:10000000000", "more than"), ("1:9e9:x1.0000001", "not a whole number"), ("[1,2", "missing"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        numbers(text, whole=True)
    assert "\n" not in str(error.value)


# -- axes --------------------------------------------------------------------------------------------------------------


def axes(**options) -> dict:
    [found] = Space.of(**options).products
    return found


def test_every_kind_of_sequence_is_an_axis() -> None:
    for given_ in ([1, 2, 4], (1, 2, 4), np.array([1, 2, 4]), [np.int64(1), 2, 4], "1:4:x2", [1, "2:4:x2"]):
        assert axes(tp=given_) == {"tp": (1, 2, 4)}
    assert axes(batch=range(1, 257))["batch"] == tuple(range(1, 257))
    assert axes(tensor_parallel_size=8, isl=[1, 2]) == {"tp": (8,), "input_len": (1, 2)}


def test_values_given_twice_count_once() -> None:
    assert axes(tp="1,2,1,2:4", hw=["a", "a"]) == {"tp": (1, 2, 3, 4), "hw": ("a",)}


def test_options_that_are_lists_by_nature_take_lists_of_lists() -> None:
    assert axes(exclude=["a", "b"])["exclude"] == (("a", "b"),)
    assert axes(exclude=[["a", "b"], None])["exclude"] == (("a", "b"), None)
    assert axes(seq_lens=[128, 4096])["seq_lens"] == ((128, 4096),)
    assert axes(seq_lens=[[1, 2], [3]])["seq_lens"] == ((1, 2), (3,))
    assert axes(kernel={"attention": "flash"})["kernel"] == (("attention=flash",),)
    assert axes(overrides=[{"a": 1}, {"a": 2}])["overrides"] == ({"a": 1}, {"a": 2})


def test_a_model_may_be_an_object_which_cannot_be_resumed() -> None:
    class Net:
        pass

    net = Net()
    space = Space.of(model=[net, "qwen3-8b"], hw="h100-sxm")
    assert len(space) == 2 and not space.plain and next(space.shards()).fixed["model"] is net
    with pytest.raises(InputError, match="given as an object"):
        _ = space.digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tp": []}, "--tp: an empty list"), ({"tp": True}, "--tp True: a whole number"),
        ({"tp": 2.0}, "--tp 2.0: a whole number"), ({"tp": {1, 2}}, "--tp .*: a set has no order"),
        ({"batch": 10**30}, "--batch"), ({"tpp": 1}, "unknown option 'tpp'; nearest: tp"),
        ({"tp": 1, "tensor_parallel_size": 2}, "given twice"), ({"hw": ""}, "--hw: an empty text"),
        ({"acceptance_rate": float("nan")}, "--acceptance-rate nan: a number"), ({"quant": 3}, "--quant 3: a text"),
        ({"seq_lens": [1.5]}, "--seq-lens"), ({"overrides": "a=1"}, "--set"), ({"quant_lm_head": 1}, "true or false"),
        ({"batch": "1:1000000", "input_len": "1:10000"}, "10,000,000,000 configurations; give at most 1,000,000,000"),
        ({"batch": range(10**12)}, "at most"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_one_line_that_names_the_option(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Space.of(**options)
    assert "\n" not in str(error.value)


def test_every_option_has_one_kind() -> None:
    kinds = [*WHOLE, *SHARES, *SWITCHES, *LISTS]
    assert len(kinds) == len(set(kinds))
    number = {p.name for p in command.params if p.type.__class__.__name__ == "Whole"} - {"top", "cfg_parallel"}
    assert number == set(WHOLE) - {"cfg"}
    assert {p.name for p in command.params if p.type.__class__.__name__ == "Fraction"} == set(SHARES)
    assert set(kinds) - {"custom", "no_plugin", "trust_remote_code", "custom_dir", "strict"} <= set(KNOWN)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_is_a_mapping_or_a_union_of_them(tmp_path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("model: m\nhw: [a, b]\nbatch: 1:512:x2\ninput-len: [1024, 2048:4096:1024]\nquant: [none, auto]\n")
    space = Space.read(file)
    assert len(space) == 2 * 10 * 4 * 2 and space.products[0]["quant"] == ("none", "auto")
    file.write_text("- {tp: 1:4}\n- {tp: 3:5, ep: 1}\n- {ep: 2}\n")
    assert len(Space.read(file)) == 4 + 1 + 1, "tp 3 and 4 stand in both"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a space is a mapping"), ("3", "a space is a mapping"), ("[]", "a space is a mapping"),
        ("- 3", "a space is a mapping"), ("tp: 1\ntp: 2", "line 2.*tp is given twice"), ("tp: [1", "not YAML"),
        ("tp: 1\ntensor-parallel-size: 2", "given twice"), ("tpp: 1", "unknown option 'tpp'"),
        ("tp:", "tp has no value"),
        ("tp: []", "empty list"), ("? [1, 2]\n: 3", "not YAML"),
        ("a: &a [*a]", "unknown option"),
        ("tp: !!python/object/apply:os.getcwd []", "not YAML"), ("input-len: 1\ninput_len: 2", "given twice"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path, text: str, said: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        Space.read(file)
    assert "\n" not in str(error.value)


def test_a_value_is_what_it_looks_like(tmp_path) -> None:
    """YAML 1.1 would read 1:8 as 68, 010 as 8 and no as false."""
    file = tmp_path / "space.yaml"
    file.write_text("batch: 1:8\ntp: [2:4, 010]\nquant: no\n")
    assert Space.read(file).products == [{"batch": (1, 2, 3, 4, 5, 6, 7, 8), "tp": (2, 3, 4, 10), "quant": ("no",)}]


# -- configurations ----------------------------------------------------------------------------------------------------


def configurations(space: Space, most: int = 7) -> list[tuple]:
    """Every configuration as sorted (option, value) pairs, from the shards."""
    found = []
    for shard in space.shards(most):
        columns = shard.variables()
        assert all(len(column) == len(shard) <= most for column in columns.values())
        rows = zip(*columns.values(), strict=True) if columns else [()] * len(shard)
        found += [tuple(sorted({**shard.fixed, **dict(zip(columns, row, strict=True))}.items())) for row in rows]
    return found


def test_shards_hold_the_product_with_the_batch_slowest_and_machines_fastest() -> None:
    options = {"hw": ["a", "b"], "input_len": [10, 20, 30], "tp": [1, 2], "batch": [1, 2, 4]}
    space = Space.of(**options)
    shards = list(space.shards(4))
    assert len(space) == 36 == sum(map(len, shards)) and space.groups == 4
    assert [shard.index for shard in shards] == list(range(12))
    assert [(s.fixed["tp"], s.fixed["hw"]) for s in shards[::3]] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    first = np.concatenate([shard.variables()["batch"] for shard in shards[:3]])
    assert first.tolist() == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    product = itertools.product(*options.values())
    assert sorted(configurations(space)) == sorted(tuple(sorted(zip(options, each, strict=True))) for each in product)


def test_none_leaves_an_option_out() -> None:
    found = configurations(Space.of(tp=2, chunk=[None, 512], batch=[1, 2], layers=[4, None]))
    assert len(found) == len(set(found)) == 8
    assert (("batch", 1), ("tp", 2)) in found and (("batch", 2), ("chunk", 512), ("layers", 4), ("tp", 2)) in found


def test_a_shard_can_be_sent() -> None:
    for shard in Space.of(hw="a", exclude=[["x"], None], batch="1:8").shards(3):
        again = pickle.loads(pickle.dumps(shard))
        assert isinstance(again, Shard) and again == shard
        assert again.variables()["batch"].tolist() == shard.variables()["batch"].tolist()


AXIS = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3, unique=True)
PART = st.dictionaries(st.sampled_from(["tp", "ep", "batch", "chunk"]), AXIS, max_size=4)


@settings(max_examples=80, deadline=None)
@given(st.lists(PART, min_size=1, max_size=4))
def test_a_union_has_each_configuration_once(parts: list[dict]) -> None:
    def meaning(pairs: dict) -> tuple:
        return tuple(sorted({"tp": 1, "ep": 1, **pairs}.items()))  # a degree that nobody gives is 1

    wanted = {
        meaning(dict(zip(part, each, strict=True))) for part in parts for each in itertools.product(*part.values())
    }
    space = Space(axes for part in parts for axes in Space.of(**part).products)
    found = [meaning(dict(pairs)) for pairs in configurations(space)]
    assert len(found) == len(set(found)) == len(space) and set(found) == wanted


def test_the_digest_tells_spaces_apart() -> None:
    one = Space.of(model="m", hw="h", tp=[1, 2])
    assert one.digest == Space.of(model="m", hw="h", tp="1:2").digest
    others = [{"tp": [1, 4]}, {"tp": [1, 2], "batch": 1}, {"tp": [1]}, {"ep": [1, 2]}]
    assert len({one.digest, *(Space.of(model="m", hw="h", **other).digest for other in others)}) == 5
