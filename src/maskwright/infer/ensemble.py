"""Several models in one model's place: of one family or of several, with the same classes.

    ensemble([mask_rcnn, solov2], weights=[2, 1], kinds="flip")

What they say is merged by ``infer.merge``, each model's voice weighted. With ``kinds`` every model also looks at those
views (``infer.augmented``).
"""

from __future__ import annotations

from collections.abc import Sequence

from maskwright.data.augment.test_time import View
from maskwright.infer.augmented import parse_views
from maskwright.infer.looks import Looks
from maskwright.infer.ready import Sizing
from maskwright.protocols import Model


def ensemble(
    models: Sequence[Model],
    *,
    weights: Sequence[float] | None = None,
    kinds: str | None = None,
    resize: Sizing = "default",
    agree: float = 0.5,
) -> Looks:
    """A model in whose place stand several.

    Args:
        models: of one task, with the same class names in any order; the first one's numbering holds.
        weights: how much each one counts, above 0; all the same by default.
        kinds: views that each one looks at, of ``infer.augmented.KINDS``; only the picture itself by default.
        resize, agree: as ``Looks`` takes them.

    Raises:
        InputError: as ``Looks`` and ``parse_views``.
    """
    seen = (View(),) if kinds is None else parse_views(kinds)
    return Looks(models, views=seen, weights=weights, resize=resize, agree=agree)
