"""Our own checkpoints: what is written is what is read, and damaged or foreign files are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from maskwright.errors import InputError
from maskwright.weights import store

META = {"version": "0.1.0", "model": "mask-rcnn-r18", "options": {"norm": "train"}, "card": {"license": "CC0-1.0"}}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)

tensors = st.builds(
    lambda shape, dtype, seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 1000),
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text("abc._0", min_size=1), tensors, max_size=4), st.dictionaries(st.text("xyz"), json_values)
)
def test_round_trip(tmp_path: Path, state: dict[str, torch.Tensor], meta: dict[str, object]) -> None:
    path = tmp_path / "a.safetensors"
    store.save(path, state, meta)
    got, got_meta = store.read(path)
    assert got_meta == {"format": store.FORMAT, **meta}
    assert got.keys() == state.keys()
    for name, value in state.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value)


def test_tied_and_strided_tensors_are_written(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base, "t": base.t(), "row": base[1], "p": torch.nn.Parameter(base)}
    store.save(tmp_path / "a.safetensors", state, META)
    got, _ = store.read(tmp_path / "a.safetensors")
    assert all(torch.equal(got[name], value) for name, value in state.items())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    store.save(path, {"a": torch.ones(2)}, META)
    with pytest.raises(TypeError):
        store.save(path, {"a": torch.zeros(2)}, {"card": object()})
    assert torch.equal(store.read(path)[0]["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 60, 300])
def test_truncated_files_are_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    store.save(path, {"a": torch.ones(200)}, META)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.safetensors .*not a whole safetensors file"):
        store.read(path)
    assert not store.is_ours(path)


def test_foreign_missing_and_newer_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(2)}, foreign, metadata={"format": "pt"})
    with pytest.raises(InputError, match="maskwright did not write it"):
        store.read(foreign)
    assert not store.is_ours(foreign)
    with pytest.raises(InputError, match="does not exist"):
        store.read(tmp_path / "no.safetensors")
    with pytest.raises(InputError, match="is a directory"):
        store.read(tmp_path)
    newer = tmp_path / "newer.safetensors"
    save_file({"a": torch.ones(2)}, newer, metadata={"maskwright": '{"format": 99}'})
    with pytest.raises(InputError, match=r"99.*upgrade"):
        store.read(newer)
    broken = tmp_path / "broken.safetensors"
    save_file({"a": torch.ones(2)}, broken, metadata={"maskwright": "{"})
    with pytest.raises(InputError, match="not JSON"):
        store.read(broken)


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        store.save(tmp_path / "file" / "a.safetensors", {"a": torch.ones(2)}, META)
    with pytest.raises(InputError, match="is a directory"):
        store.save(tmp_path, {"a": torch.ones(2)}, META)
