"""Foreign checkpoints: every wrapper is taken off, and none of them runs code."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from maskwright.errors import InputError
from maskwright.weights.pickles import read_pickle, read_state

ARRAYS = {
    "backbone.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.float16([1.5, -2]),
    "count": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.array([1, 2, 3], dtype=">f4"),
}


class Evil:
    """Leaves a trace when it is unpickled by an ordinary unpickler."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


class Custom:
    pass


def check(state: dict[str, torch.Tensor]) -> None:
    assert state.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert np.array_equal(state[name].numpy(), value), name
        assert state[name].shape == value.shape


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_detectron2_pickles(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model_final.pkl"
    content = {"model": OrderedDict(ARRAYS), "__author__": "Detectron2 Model Zoo", "iteration": np.int64(3)}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    check(read_state(path))


@pytest.mark.parametrize("wrap", [None, "model", "state_dict", "model_state", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, wrap: str | None, zipped: bool) -> None:
    native = {name: value.astype(value.dtype.newbyteorder("=")) for name, value in ARRAYS.items()}
    state = {f"module.{name}": torch.from_numpy(value) for name, value in native.items()}
    content = OrderedDict(state) if wrap is None else {wrap: state, "epoch": 3, "optimizer": {"lr": 0.1, "state": {}}}
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    check(read_state(path))


def test_the_kind_is_recognized_from_the_content(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0)}
    save_file(state, tmp_path / "a.bin")
    torch.save(state, tmp_path / "b.pkl")
    (tmp_path / "c.pth").write_bytes(pickle.dumps({"a": state["a"].numpy()}, protocol=4))
    for name in ("a.bin", "b.pkl", "c.pth"):
        assert torch.equal(read_state(tmp_path / name)["a"], state["a"]), name


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_pickles_that_want_to_run_code(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": Evil(trace)}}, protocol=protocol))
    # Protocols 0 and 1 are text without a mark of their own: such a file is no checkpoint at all.
    with pytest.raises(InputError, match=r"run code .*system" if protocol >= 2 else "no checkpoint"):
        read_state(path)
    with pytest.raises(InputError, match=r"run code .*system"):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_that_want_to_run_code(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pth"
    torch.save({"model": {"a": torch.ones(2)}, "hook": Evil(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"wants to run code when read \(\w+\.system\)"):
        read_state(path)
    assert not trace.exists()


def test_whole_modules_and_other_classes_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_state(tmp_path / "module.pth")
    (tmp_path / "custom.pkl").write_bytes(pickle.dumps({"model": Custom()}))
    with pytest.raises(InputError, match="Custom"):
        read_state(tmp_path / "custom.pkl")


@pytest.mark.parametrize(
    "value", [np.array([{"a": 1}], dtype=object), np.zeros(2, dtype=[("x", "f4")]), np.array(["1"], "M8[s]")]
)
def test_arrays_of_objects_are_refused(tmp_path: Path, value: np.ndarray) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": value}, protocol=2))
    with pytest.raises(InputError, match="refused"):
        read_state(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("builtins", "getattr"), ("numpy", "load"), ("numpy.core.multiarray", "fromfile"),
     ("torch", "load"), ("subprocess", "Popen"), ("collections", "namedtuple"), ("numpy", "ndarray.tofile")],
)  # fmt: skip
def test_globals_beside_numpy_arrays_are_named(tmp_path: Path, module: str, name: str) -> None:
    text = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(v)]) + v.encode() for v in (module, name)) + b"\x93."
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(InputError, match=rf"\({module}\.{name}\)"):
        read_pickle(tmp_path / "a.pkl")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_pickles_give_clear_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"model": ARRAYS}, protocol=data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(2, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.pkl"
    path.write_bytes(whole[: data.draw(st.integers(2, len(whole)))])
    # Damage inside an array's numbers cannot be seen; any other must be reported as such, and as nothing else.
    with suppress(InputError):
        read_state(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_files(tmp_path: Path, zipped: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.randn(3000)}, buffer, _use_new_zipfile_serialization=zipped)
    for keep in (40, 300, len(buffer.getvalue()) - 200):
        (tmp_path / "a.pth").write_bytes(buffer.getvalue()[:keep])
        with pytest.raises(InputError, match=r"a\.pth"):
            read_state(tmp_path / "a.pth")


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "text.pkl": (b"hello, world, this is text", "no checkpoint"),
        "empty.pth": (b"", "no checkpoint"),
        "list.pkl": (pickle.dumps([1, 2]), "got list"),
        "numbers.pkl": (pickle.dumps({"epoch": 1}), "dictionary with 'epoch'"),
        "caffe2.pkl": (pickle.dumps({"blobs": {"conv1_w": ARRAYS["half"]}}), "Caffe2"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_state(tmp_path / name)
    with pytest.raises(InputError, match="is a directory"):
        read_state(tmp_path)
    with pytest.raises(InputError, match=r"no\.pth"):
        read_state(tmp_path / "no.pth")
