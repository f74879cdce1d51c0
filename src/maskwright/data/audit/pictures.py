"""The pictures of a data set looked over: broken ones, and those that are there twice, or nearly so."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from maskwright.data.audit.findings import Finding
from maskwright.data.dataset import Dataset
from maskwright.data.source import Loads
from maskwright.errors import InputError

_HASH = 16  # differences of brightness between 16 x 17 cells: 256 bits
_BITS_OFF = 12  # of 256: JPEG anew, another size or slight changes of color stay below
_CHUNK = 16  # bits; two hashes with fewer than 16 bits off agree in at least one of their 16 chunks
_THUMB = 24
_MEAN_OFF = 5.0  # mean difference of thumbnails, in 0..255 after their means are taken away
_PLAIN = 1.0  # standard deviation of a thumbnail below which a picture has nothing to be known by
_CROWDED = 200  # members of one chunk's bucket; beyond, only neighbors by the whole hash are compared


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of a picture: the hash of its pixels, 256 bits of its looks, a thumbnail."""

    exact: bytes
    bits: np.ndarray
    thumb: np.ndarray


def look(image: Tensor) -> Look:
    """What a picture uint8 [3, H, W] looks like."""
    gray = image.float().mean(dim=0)[None, None]
    cells = interpolate(gray, size=(_HASH, _HASH + 1), mode="area")[0, 0].numpy()
    thumb = interpolate(gray, size=(_THUMB, _THUMB), mode="area")[0, 0].numpy()
    data = image.permute(1, 2, 0).contiguous().numpy()
    digest = hashlib.blake2b(data.tobytes(), digest_size=16, person=repr(data.shape).encode()[:16]).digest()
    return Look(digest, (cells[:, 1:] > cells[:, :-1]).reshape(-1), thumb - thumb.mean())


def check_pictures(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Open every picture, on all processors."""
    places = [(split, source, i) for split, source in dataset.splits.items() for i in range(len(source))]
    out: list[Finding] = []
    names: list[tuple[str, str]] = []
    looks: list[Look] = []

    def work(place: int) -> tuple[str, Look | InputError]:
        _, source, index = places[place]
        try:
            record, image = source.load(index)
            return record.key, look(image)
        except InputError as error:
            return source.record(index).key, error

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, (key, found) in enumerate(pool.map(work, range(len(places)))):
                split = places[done][0]
                if isinstance(found, InputError):
                    out.append(Finding(check="broken picture", text=str(found), split=split, key=key))
                else:
                    names.append((split, key))
                    looks.append(found)
                if progress is not None:
                    progress(done + 1, len(places))
    finally:
        torch.set_num_threads(threads)
    return out + _repeats(names, looks)


def alike(source: Loads) -> list[list[int]]:
    """Groups of two or more pictures of a source that are the same or nearly so, by number; none is in two.

    Raises:
        InputError: a picture cannot be read.
    """
    looks = [look(source.load(index)[1]) for index in range(len(source))]
    parent = list(range(len(looks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j, _ in _similar(looks):
        parent[root(j)] = root(i)
    groups: dict[int, list[int]] = {}
    for i in range(len(looks)):
        groups.setdefault(root(i), []).append(i)
    return [members for members in groups.values() if len(members) > 1]


def _repeats(names: list[tuple[str, str]], looks: list[Look]) -> list[Finding]:
    """Each picture once for every check, with the first that it is like."""
    out: dict[tuple[str, int], Finding] = {}
    for i, j, exact in sorted(_similar(looks)):
        (split_a, a), (split_b, b) = names[i], names[j]
        if split_a != split_b:
            check, how = ("leakage", "the same") if exact else ("near leakage", "nearly the same")
            text = f"{how} picture as {a} of {split_a}"
        else:
            check, how = ("duplicate picture", "the same") if exact else ("near duplicate", "nearly the same")
            text = f"{how} picture as {a}"
        out.setdefault((check, j), Finding(check=check, text=text, split=split_b, key=b))
    return list(out.values())


def _similar(looks: list[Look]) -> Iterator[tuple[int, int, bool]]:
    """Pairs (first, second, whether every pixel is the same), each once; exact copies are told of their first only."""
    first: dict[bytes, int] = {}
    own: list[int] = []
    for i, its in enumerate(looks):
        if its.exact in first:
            yield first[its.exact], i, True
        else:
            first[its.exact] = i
            if its.thumb.std() >= _PLAIN:
                own.append(i)
    if len(own) < 2:
        return
    bits = np.packbits(np.stack([looks[i].bits for i in own]), axis=1)
    chunks = bits.view(np.uint16)
    compared: set[tuple[int, int]] = set()
    for column in range(chunks.shape[1]):
        order = np.argsort(chunks[:, column], kind="stable")
        ends = np.flatnonzero(np.diff(chunks[order, column])) + 1
        for bucket in np.split(order, ends):
            for a, b in _bucket_pairs(bucket, bits):
                pair = (min(a, b), max(a, b))
                if pair in compared:
                    continue
                compared.add(pair)
                i, j = own[pair[0]], own[pair[1]]
                off = np.unpackbits(bits[pair[0]] ^ bits[pair[1]]).sum()
                if off <= _BITS_OFF and np.abs(looks[i].thumb - looks[j].thumb).mean() <= _MEAN_OFF:
                    yield min(i, j), max(i, j), False


def _bucket_pairs(bucket: np.ndarray, bits: np.ndarray) -> Iterator[tuple[int, int]]:
    """All pairs of a small bucket; of a crowded one (flat pictures) those that are neighbors in order of their bits."""
    if len(bucket) <= _CROWDED:
        for k, a in enumerate(bucket.tolist()):
            for b in bucket[k + 1 :].tolist():
                yield a, b
        return
    order = bucket[np.lexsort(bits[bucket].T[::-1])]
    for step in (1, 2, 3):
        yield from zip(order[:-step].tolist(), order[step:].tolist(), strict=True)
