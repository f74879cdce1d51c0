"""What ``tracks.Tracking`` counts of one sequence: HOTA's, CLEAR's and identities' sums. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskwright.ops.assignment import assign

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""The similarities at which HOTA is taken: 19, as TrackEval's floats."""

_EPS = float(np.finfo(np.float64).eps)
_HALF = 0.5  # the similarity from which on CLEAR and IDF1 let two objects match
INTEGERS = ("TP", "FN", "FP", "switches", "mostly_tracked", "partly_tracked", "mostly_lost", "fragments",
             "IDTP", "IDFN", "IDFP")  # fmt: skip
MEANS = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA")
COUNTS = ("switches", "fragments", "mostly_tracked", "partly_tracked", "mostly_lost")


@dataclass(slots=True)
class Tracks:
    """The objects of one class in one sequence of T frames; G_t annotated and D_t found in frame t.

    Attributes:
        truth: T arrays int [G_t], which track each annotated object belongs to; distinct in a frame.
        found: T arrays int [D_t], the same of what was found.
        similarity: T arrays float64 [G_t, D_t] in [0, 1]: IoU of masks or boxes.
        ignored: T arrays float64 [D_t], the share of each found object that lies in regions that do not count.
    """

    truth: Sequence[np.ndarray]
    found: Sequence[np.ndarray]
    similarity: Sequence[np.ndarray]
    ignored: Sequence[np.ndarray] | None = None

    def check(self) -> None:
        """Raise ``ValueError`` unless everything is as stated."""
        ignored = self.truth if self.ignored is None else self.ignored
        lengths = {len(part) for part in (self.truth, self.found, self.similarity, ignored)}
        if len(lengths) > 1:
            raise ValueError(f"truth, found, similarity and ignored must be of as many frames, got {sorted(lengths)}")
        for t, (there, found, similarity) in enumerate(zip(self.truth, self.found, self.similarity, strict=True)):
            for name, ids in (("truth", there), ("found", found)):
                if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu") or len(np.unique(ids)) < len(ids):
                    raise ValueError(f"frame {t}: {name} must be distinct integers, got {ids!r:.80}")
            if similarity.shape != (len(there), len(found)) or not ((similarity >= 0) & (similarity <= 1)).all():
                raise ValueError(
                    f"frame {t}: similarity must be {(len(there), len(found))} in [0, 1], got {similarity!r:.80}"
                )
            if self.ignored is not None and self.ignored[t].shape != found.shape:
                raise ValueError(f"frame {t}: ignored must be {found.shape}, got {self.ignored[t].shape}")


@dataclass(slots=True)
class Sums:
    """What is counted of K classes in one sequence, or of I sequences with a leading axis.

    Attributes:
        counts: int64 [.., K, 11], ``INTEGERS``. pairs: int64 [.., K, 3, 19], HOTA's TP, FN, FP.
        shares: float64 [.., K, 4, 19], over HOTA's TP: association's IoU, recall, precision, and similarity.
        similarity: float64 [.., K], over CLEAR's TP.
    """

    counts: np.ndarray
    pairs: np.ndarray
    shares: np.ndarray
    similarity: np.ndarray


def box_similarity(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """IoU float64 [G, D] of boxes float [G, 4] and [D, 4], (x1, y1, x2, y2); 0 where a box is empty."""
    truth, found = np.asarray(truth, np.float64).reshape(-1, 4), np.asarray(found, np.float64).reshape(-1, 4)
    near = np.maximum(truth[:, None, :2], found[None, :, :2])
    far = np.minimum(truth[:, None, 2:], found[None, :, 2:])
    common = np.maximum(far - near, 0).prod(2)
    own, other = (np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1) for boxes in (truth, found))
    whole = own[:, None] + other - common
    return np.where((common > 0) & (whole > 0), common / np.where(whole > 0, whole, 1), 0.0)


def hota(pairs: np.ndarray, shares: np.ndarray) -> dict[str, np.ndarray]:
    """HOTA and its parts over ``ALPHAS``, float64 [19] each, of ``Sums.pairs`` [3, 19] and ``Sums.shares`` [4, 19]
    (HOTA, equations 7 to 27)."""
    true, missed, false = pairs
    some = np.maximum(1, true)
    accuracy, recall, precision = shares[:3] / some
    out = {"DetA": true / np.maximum(1, true + missed + false), "AssA": accuracy}
    out = {"HOTA": np.sqrt(out["DetA"] * accuracy)} | out
    out |= {"DetRe": true / np.maximum(1, true + missed), "DetPr": true / np.maximum(1, true + false)}
    return out | {"AssRe": recall, "AssPr": precision, "LocA": np.where(true > 0, shares[3] / some, 1.0)}


def occurs(counts: np.ndarray) -> np.ndarray:
    """Whether there is anything, annotated or found, bool [..], of ``Sums.counts`` [.., 11]."""
    return counts[..., :3].sum(-1) > 0


def count_sequence(tracks: Tracks, sums: Sums, label: int) -> None:
    """Count one class of one sequence into row ``label`` of ``sums``."""
    tracks = _counted(tracks)
    truth_lengths, truth = _numbered(tracks.truth)
    found_lengths, found = _numbered(tracks.found)
    annotated, detected = int(truth_lengths.sum()), int(found_lengths.sum())
    counts = dict.fromkeys(INTEGERS, 0)
    counts |= {"FN": annotated, "FP": detected, "IDFN": annotated, "IDFP": detected, "mostly_lost": len(truth_lengths)}
    sums.pairs[label, 1], sums.pairs[label, 2] = annotated, detected
    if annotated and detected:
        lengths = truth_lengths, found_lengths
        matched = _identities(truth, found, tracks.similarity, lengths)
        counts |= {"IDTP": matched, "IDFN": annotated - matched, "IDFP": detected - matched}
        clear, sums.similarity[label] = _clear(truth, found, tracks.similarity, lengths)
        counts |= clear
        _associate(truth, found, tracks.similarity, lengths, sums, label)
    sums.counts[label] = [counts[name] for name in INTEGERS]


def _counted(tracks: Tracks) -> Tracks:
    """The tracks without unmatched objects that lie in regions that do not count (MOTS, section 4)."""
    if tracks.ignored is None or not any((share > 0).any() for share in tracks.ignored):
        return tracks
    found: list[np.ndarray] = []
    similarities: list[np.ndarray] = []
    for ids, similarity, share in zip(tracks.found, tracks.similarity, tracks.ignored, strict=True):
        out = share > _HALF + _EPS
        if out.any():
            rows, columns = assign(np.where(similarity < _HALF - _EPS, -10000.0, similarity))
            out[columns[similarity[rows, columns] >= _HALF - _EPS]] = False
        found.append(ids[~out])
        similarities.append(similarity[:, ~out])
    return Tracks(tracks.truth, found, similarities)


def _numbered(ids: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """In how many frames each distinct id is, and the frames with the ids' places instead of them."""
    flat = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
    _, places, lengths = np.unique(flat, return_inverse=True, return_counts=True)
    cuts = np.cumsum([len(part) for part in ids])[:-1]
    return lengths, np.split(places.reshape(-1), cuts) if len(ids) else []


Ids = Sequence[np.ndarray]
Lengths = tuple[np.ndarray, np.ndarray]


def _associate(
    truth: Ids, found: Ids, similarity: Sequence[np.ndarray], lengths: Lengths, sums: Sums, label: int
) -> None:
    """HOTA's matches: one assignment a frame that favors pairs of tracks that agree over the sequence (section 5.3)."""
    width = len(lengths[1])
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for there, here, near in zip(truth, found, similarity, strict=True):
        rows, columns = np.nonzero(near)
        whole = (near.sum(0)[None, :] + near.sum(1)[:, None] - near)[rows, columns]
        near = near[rows, columns]
        aligned = np.where(whole > _EPS, near / np.where(whole > _EPS, whole, 1), 0.0)
        parts.append((there[rows] * width + here[columns], aligned))
    codes, places = np.unique(np.concatenate([code for code, _ in parts]), return_inverse=True)
    common = np.bincount(places.reshape(-1), np.concatenate([value for _, value in parts]), len(codes))
    score = common / (lengths[0][codes // width] + lengths[1][codes % width] - common)
    pairs: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for (code, _), there, here, near in zip(parts, truth, found, similarity, strict=True):
        if not len(code):
            continue
        rows, columns = np.nonzero(near)
        scores = np.zeros(near.shape)
        scores[rows, columns] = score[np.searchsorted(codes, code)] * near[rows, columns]
        rows, columns = assign(scores)
        pairs.append(there[rows] * width + here[columns])
        values.append(near[rows, columns])
    pair, value = np.concatenate([np.zeros(0, np.int64), *pairs]), np.concatenate([np.zeros(0), *values])
    codes, places = np.unique(pair, return_inverse=True)
    own, other = lengths[0][codes // width], lengths[1][codes % width]
    for a, alpha in enumerate(ALPHAS):
        true = value >= alpha - _EPS
        number = int(true.sum())
        sums.pairs[label, :, a] += np.array([number, -number, -number])
        times = np.bincount(places.reshape(-1)[true], minlength=len(codes))
        sums.shares[label, 0, a] = (times * (times / (own + other - times))).sum()
        sums.shares[label, 1, a] = (times * (times / own)).sum()
        sums.shares[label, 2, a] = (times * (times / other)).sum()
        sums.shares[label, 3, a] = value[true].sum()


def _clear(truth: Ids, found: Ids, similarity: Sequence[np.ndarray], lengths: Lengths) -> tuple[dict[str, int], float]:
    """CLEAR's counts and the similarity over its matches, which go on from the frame before where they can.

    Frames without annotated or without found objects leave the memory of the frame before as it was, as in TrackEval.
    """
    count = len(lengths[0])
    last, before = np.full(count, -1), np.full(count, -1)  # found track of each annotated one: ever, in that frame
    matched, begun = np.zeros(count, np.int64), np.zeros(count, np.int64)
    true, switches, total = 0, 0, 0.0
    for there, here, near in zip(truth, found, similarity, strict=True):
        if not near.size:
            continue
        score = np.where(near < _HALF - _EPS, 0.0, 1000.0 * (here[None, :] == before[there][:, None]) + near)
        rows, columns = assign(score)
        kept = score[rows, columns] > _EPS
        rows, columns = rows[kept], columns[kept]
        objects, followers = there[rows], here[columns]
        switches += int(((last[objects] >= 0) & (last[objects] != followers)).sum())
        matched[objects] += 1
        begun[objects] += before[objects] < 0
        last[objects] = followers
        before[:] = -1
        before[objects] = followers
        true += len(rows)
        total += float(near[rows, columns].sum())
    followed = matched / lengths[0]
    mostly = int((followed > 0.8).sum())
    partly = int((followed >= 0.2).sum()) - mostly
    out = {"TP": true, "FN": int(lengths[0].sum()) - true, "FP": int(lengths[1].sum()) - true, "switches": switches}
    out |= {"mostly_tracked": mostly, "partly_tracked": partly, "mostly_lost": count - mostly - partly}
    return out | {"fragments": int(np.maximum(begun - 1, 0).sum())}, total


def _identities(truth: Ids, found: Ids, similarity: Sequence[np.ndarray], lengths: Lengths) -> int:
    """IDTP: objects matched where whole tracks are paired one to one so that most are (Ristani et al., section 3)."""
    width = len(lengths[1])
    codes: list[np.ndarray] = []
    for there, here, near in zip(truth, found, similarity, strict=True):
        rows, columns = np.nonzero(near >= _HALF)
        codes.append(there[rows] * width + here[columns])
    common = np.bincount(np.concatenate(codes), minlength=len(lengths[0]) * width).reshape(-1, width)
    return int(common[assign(common)].sum())
