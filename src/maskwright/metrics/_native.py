"""Numba kernels as machine code that later processes call without importing numba.

Importing numba costs more time than scoring a thousand images. So kernels are compiled once, by numba; their object
code is kept in a cache file, and every later process hands it to LLVM's linker (llvmlite, which numba brings) and calls
it by ``ctypes``. Such calls release the GIL, so threads run kernels in parallel.

A kernel takes integers only (an address is one) and returns one. It neither allocates nor raises: what it needs is
passed in, what went wrong is in what it returns. The cache is keyed by the source of the kernels, the version of
llvmlite (numba's releases are tied to it) and the processor; it lies beside the source as Python's own does, or in the
user's cache folder where that cannot be written. Of each set of kernels the newest few files are kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock, Thread
from typing import Any

_HERE = Path(__file__).parent
_FORMAT = b"1"
_KEPT = 4  # files of one set of kernels: environments that share the user's cache must not take turns compiling


class Kernels:
    """The kernels of some modules of this package, compiled on first use.

    Args:
        modules: names of modules beside this one: all whose source the kernels are made of. ``KERNELS`` in them is a
            dict from a kernel's name to the Python function and its numba signature: pointers and int64 in, int64 out.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._functions: dict[str, Callable[..., int]] = {}
        self._lock = Lock()
        self._library: Any = None  # the linker and what it linked: dropped, the code would be unmapped
        self._addresses: dict[str, int] = {}

    def __call__(self, name: str, *args: int) -> int:
        """Run kernel ``name``; an array is passed as its address, ``array.ctypes.data``."""
        function = self._functions.get(name) or self._function(name, len(args))
        result = ctypes.c_int64()
        function(ctypes.byref(result), None, *args)
        return result.value

    def _function(self, name: str, count: int) -> Callable[..., int]:
        with self._lock:
            if self._library is None:
                self._link()
        address = self._addresses.get(f"{name}_{count}")
        if address is None:
            raise RuntimeError(
                f"kernel {name} must take {count} arguments, but the one compiled from {_HERE} does not. "
                "Did the package change while this process ran? Start it again."
            )
        # numba's calling convention: status = f(&result, &exception, arguments...)
        form = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * count)
        self._functions[name] = form(address)
        return self._functions[name]

    def _link(self) -> None:
        llvmlite: Any = import_module("llvmlite")
        llvm: Any = import_module("llvmlite.binding")

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
        made_for = (llvmlite.__version__, llvm.get_process_triple(), *processor)
        digest = hashlib.sha256(_FORMAT + "|".join(made_for).encode())
        for module in ("_native", *self._modules):
            digest.update((_HERE / f"{module}.py").read_bytes())
        key = f"{self._modules[-1].strip('_')}-{digest.hexdigest()[:24]}"
        code, names = _cached(key)
        if not code:
            sys.stderr.write("maskwright: compiling kernels once, about 30 s\n")
            sys.stderr.flush()
            code, names = self._compile(llvm, processor)
            _keep(key, code, names)
        jit = llvm.create_lljit_compiler()
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name in names:
            builder.export_symbol(f"maskwright_{name}")
        linked = builder.link(jit, key)
        self._addresses = {name: linked[f"maskwright_{name}"] for name in names}
        self._library = (jit, linked)

    def _compile(self, llvm: Any, processor: tuple[str, str]) -> tuple[bytes, list[str]]:
        """Machine code of all kernels as one object file, and their names with their number of arguments."""
        from numba import njit

        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        whole: Any = None
        names: list[str] = []
        for module in self._modules:
            kernels = getattr(import_module(f"{__package__}.{module}"), "KERNELS", {})
            for name, (function, signature) in kernels.items():
                compiled: Any = njit(signature, **options)(function)
                (form,) = compiled.signatures
                part = llvm.parse_assembly(compiled.inspect_llvm(form))
                names.append(f"{name}_{len(form)}")
                part.get_function(compiled.overloads[form].fndesc.llvm_func_name).name = f"maskwright_{names[-1]}"
                if whole is None:
                    whole = part
                else:
                    whole.link_in(part)
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            cpu=processor[0], features=processor[1], opt=3, reloc="default", codemodel="jitdefault"
        )
        return machine.emit_object(whole), names


def _folders() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return [_HERE / "__pycache__", Path(home) / "maskwright"]


def _cached(key: str) -> tuple[bytes, list[str]]:
    for folder in _folders():
        try:
            head, _, code = (folder / f"kernels-{key}.o").read_bytes().partition(b"\n")
        except OSError:
            continue
        # The head ends with the length of the code: a file cut short by a full disk is compiled anew.
        *names, length = head.decode("ascii", "replace").split()
        if length == str(len(code)):
            return code, names
    return b"", []


def _keep(key: str, code: bytes, names: list[str]) -> None:
    head = " ".join([*names, str(len(code))]).encode() + b"\n"
    for folder in _folders():
        beside = folder / f".{key}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(head + code)
            beside.replace(folder / f"kernels-{key}.o")
        except OSError:
            continue  # not writable, or full: try the next; with none the code is compiled again next time
        _forget(folder, key.rpartition("-")[0])
        return


def _forget(folder: Path, name: str) -> None:
    """Delete the oldest files of the kernels ``name`` until few are left."""
    try:
        found = sorted(folder.glob(f"kernels-{name}-*.o"), key=lambda path: path.stat().st_mtime)
        for path in found[:-_KEPT]:
            path.unlink()
    except OSError:
        return  # another process was here first


# ---- threads --------------------------------------------------------------------------------------------------------


def run_threads(work: Sequence[Callable[[], None]]) -> None:
    """Run ``work`` on as many threads as there are processors for this process; the first error is raised."""
    errors: list[Exception] = []
    waiting = iter(work)
    lock = Lock()

    def worker() -> None:
        while not errors:
            with lock:
                task = next(waiting, None)
            if task is None:
                return
            try:
                task()
            except Exception as error:
                errors.append(error)

    threads = [Thread(target=worker) for _ in range(min(len(work), processors()) - 1)]
    for thread in threads:
        thread.start()
    worker()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def processors() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
