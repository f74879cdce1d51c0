"""THE table: every model's name, and how a name, a checkpoint or a run directory becomes a model.

Listing the table imports no torch; builders are named as ``module:function`` and resolved when they are called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from maskwright.errors import InputError
from maskwright.weights.table import Published, check_license, find, is_published, of_model, packaged, published

if TYPE_CHECKING:
    import torch

    from maskwright.protocols import Model
    from maskwright.structures import Taxonomy
    from maskwright.weights.hub import Progress

_MASK_RCNN = "He, Gkioxari, Dollár, Girshick: Mask R-CNN. ICCV 2017, arXiv:1703.06870"
_PANET = "Liu, Qi, Qin, Shi, Jia: Path Aggregation Network for Instance Segmentation. CVPR 2018, arXiv:1803.01534"
_MASK_SCORING = "Huang, Huang, Gong, Huang, Wang: Mask Scoring R-CNN. CVPR 2019, arXiv:1903.00241"
_CASCADE = "Cai, Vasconcelos: Cascade R-CNN: High Quality Object Detection and Instance Segmentation. arXiv:1906.09756"
_POINTREND = "Kirillov, Wu, He, Girshick: PointRend: Image Segmentation as Rendering. CVPR 2020, arXiv:1912.08193"
_QUERYINST = "Fang, Yang, Wang, Li, Fang, Shan, Feng, Liu: Instances as Queries. ICCV 2021, arXiv:2105.01928"
_SOLO = "Wang, Kong, Shen, Jiang, Li: SOLO: Segmenting Objects by Locations. ECCV 2020, arXiv:1912.04488"
_SOLOV2 = "Wang, Zhang, Kong, Li, Shen: SOLOv2: Dynamic and Fast Instance Segmentation. NeurIPS 2020, arXiv:2003.10152"
_PANOPTIC_FPN = "Kirillov, Girshick, He, Dollár: Panoptic Feature Pyramid Networks. CVPR 2019, arXiv:1901.02446"
_PANOPTIC_DEEPLAB = (
    "Cheng, Collins, Zhu, Liu, Huang, Adam, Chen: Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up "
    "Panoptic Segmentation. CVPR 2020, arXiv:1911.10194"
)
_UPSNET = "Xiong et al.: UPSNet: A Unified Panoptic Segmentation Network. CVPR 2019, arXiv:1901.03784"
_DEEPLAB = "Chen et al.: Encoder-Decoder with Atrous Separable Convolution. ECCV 2018, arXiv:1802.02611"
_DETR = "Carion et al.: End-to-End Object Detection with Transformers. ECCV 2020, arXiv:2005.12872"
_MASKFORMER = "Cheng, Schwing, Kirillov: Per-Pixel Classification is Not All You Need. NeurIPS 2021, arXiv:2107.06278"
_YOLACT = "Bolya, Zhou, Xiao, Lee: YOLACT: Real-time Instance Segmentation. ICCV 2019, arXiv:1904.02689"
_RTMDET = "Lyu et al.: RTMDet: An Empirical Study of Designing Real-Time Object Detectors. arXiv:2212.07784"
_MASK2FORMER = (
    "Cheng et al.: Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022, arXiv:2112.01527"
)
_SEGFORMER = (
    "Xie, Wang, Yu, Anandkumar, Alvarez, Luo: SegFormer: Simple and Efficient Design for Semantic Segmentation with "
    "Transformers. NeurIPS 2021, arXiv:2105.15203"
)
_EOMT = "Kerssies et al.: Your ViT is Secretly an Image Segmentation Model. CVPR 2025, arXiv:2503.19108"
_CONDINST = "Tian, Shen, Chen: Conditional Convolutions for Instance Segmentation. ECCV 2020, arXiv:2003.05664"
_CENTERMASK = "Lee, Park: CenterMask: Real-Time Anchor-Free Instance Segmentation. CVPR 2020, arXiv:1911.06667"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model that has a name.

    Attributes:
        name: what ``load``, ``build`` and ``maskwright train`` take.
        build: ``module:function``; called as ``function(taxonomy, **options)``, it returns a ``Model``.
        task: instance, semantic or panoptic; the model gets it as an attribute, and data and measures follow from it.
        domain: image, clip, cloud or volume.
        paper: the method's source.
    """

    name: str
    build: str
    task: str
    domain: str
    paper: str

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of published weights, see ``maskwright.weights.table``."""
        return of_model(self.name)


def _row(task: str, name: str, build: str, paper: str) -> Entry:
    return Entry(name=name, build=f"maskwright.models.{build}", task=task, domain="image", paper=paper)


def _instance(name: str, build: str, paper: str) -> Entry:
    return _row("instance", name, build, paper)


_CLASS_LAYER = "box_head.class_logits.weight"
"""A parameter of ours whose length is the number of classes and the background."""

TABLE: tuple[Entry, ...] = (
    _instance("mask-rcnn-r18", "mask_rcnn:mask_rcnn_r18", _MASK_RCNN),
    _instance("mask-rcnn-r50", "mask_rcnn:mask_rcnn_r50", _MASK_RCNN),
    _instance("mask-rcnn-r101", "mask_rcnn:mask_rcnn_r101", _MASK_RCNN),
    _instance("mask-rcnn-x101", "mask_rcnn:mask_rcnn_x101", _MASK_RCNN),
    _instance("mask-rcnn-mobilenetv3", "mask_rcnn:mask_rcnn_mobilenetv3", _MASK_RCNN),
    _instance("mask-rcnn-r18-light", "mask_rcnn:mask_rcnn_r18_light", _MASK_RCNN),
    _instance("panet-r50", "panet:panet_r50", _PANET),
    _instance("panet-r101", "panet:panet_r101", _PANET),
    _instance("mask-scoring-rcnn-r50", "mask_scoring_rcnn:mask_scoring_rcnn_r50", _MASK_SCORING),
    _instance("mask-scoring-rcnn-r101", "mask_scoring_rcnn:mask_scoring_rcnn_r101", _MASK_SCORING),
    _instance("cascade-mask-rcnn-r50", "cascade_mask_rcnn:cascade_mask_rcnn_r50", _CASCADE),
    _instance("pointrend-r50", "pointrend:pointrend_r50", _POINTREND),
    _instance("pointrend-r101", "pointrend:pointrend_r101", _POINTREND),
    _instance("pointrend-x101", "pointrend:pointrend_x101", _POINTREND),
    _instance("queryinst-r50", "queryinst:queryinst_r50", _QUERYINST),
    _instance("queryinst-r101", "queryinst:queryinst_r101", _QUERYINST),
    _instance("solo-r50", "solo:solo_r50", _SOLO),
    _instance("solo-decoupled-r50", "solo:solo_decoupled_r50", _SOLO),
    _instance("solov2-r50", "solov2:solov2_r50", _SOLOV2),
    _instance("solov2-r101", "solov2:solov2_r101", _SOLOV2),
    _instance("solov2-light-r18", "solov2:solov2_light_r18", _SOLOV2),
    _instance("yolact-r50", "yolact:yolact_r50", _YOLACT),
    _instance("yolact-r101", "yolact:yolact_r101", _YOLACT),
    _instance("yolact-mobilenetv3", "yolact:yolact_mobilenetv3", _YOLACT),
    _instance("rtmdet-ins-tiny", "rtmdet_ins:rtmdet_ins_tiny", _RTMDET),
    _instance("rtmdet-ins-s", "rtmdet_ins:rtmdet_ins_s", _RTMDET),
    _instance("rtmdet-ins-m", "rtmdet_ins:rtmdet_ins_m", _RTMDET),
    _instance("condinst-r50", "condinst:condinst_r50", _CONDINST),
    _instance("condinst-r101", "condinst:condinst_r101", _CONDINST),
    _instance("centermask-r50", "centermask:centermask_r50", _CENTERMASK),
    _instance("centermask-v39", "centermask:centermask_v39", _CENTERMASK),
    _instance("centermask-lite", "centermask:centermask_lite", _CENTERMASK),
    _instance("detr-r50", "detr:detr_r50", _DETR),
    _instance("detr-r101", "detr:detr_r101", _DETR),
    _row("panoptic", "detr-panoptic-r50", "detr:detr_panoptic_r50", _DETR),
    _row("panoptic", "panoptic-fpn-r50", "panoptic_fpn:panoptic_fpn_r50", _PANOPTIC_FPN),
    _row("panoptic", "panoptic-fpn-r101", "panoptic_fpn:panoptic_fpn_r101", _PANOPTIC_FPN),
    _row("panoptic", "upsnet-r50", "upsnet:upsnet_r50", _UPSNET),
    _row("panoptic", "panoptic-deeplab-r52", "panoptic_deeplab:panoptic_deeplab_r52", _PANOPTIC_DEEPLAB),
    _row(
        "panoptic", "panoptic-deeplab-mobilenetv3", "panoptic_deeplab:panoptic_deeplab_mobilenetv3", _PANOPTIC_DEEPLAB
    ),
    _row("panoptic", "maskformer-r50", "maskformer:maskformer_r50", _MASKFORMER),
    _row("panoptic", "maskformer-swin-t", "maskformer:maskformer_swin_t", _MASKFORMER),
    *(
        _row(
            task, f"mask2former-{task}-{body}", f"mask2former:mask2former_{task}_{body.replace('-', '_')}", _MASK2FORMER
        )
        for task in ("instance", "semantic", "panoptic")
        for body in ("r50", "swin-t", "swin-s", "swin-b", "swin-l")
    ),
    *(_row("panoptic", f"eomt-{size}", f"eomt:eomt_{size}", _EOMT) for size in ("s", "b", "l")),
    *(_row("semantic", f"segformer-b{i}", f"segformer:segformer_b{i}", _SEGFORMER) for i in range(6)),
    _row("semantic", "semantic-fpn-r50", "semantic_fpn:semantic_fpn_r50", _PANOPTIC_FPN),
    _row("semantic", "deeplabv3plus-r50", "deeplabv3plus:deeplabv3plus_r50", _DEEPLAB),
)

_BY_NAME = {entry.name: entry for entry in TABLE}


def models() -> tuple[Entry, ...]:
    """All models, in the table's order."""
    return TABLE


def entry(name: str) -> Entry:
    """The row called ``name``.

    Raises:
        InputError: there is none; the message suggests the closest names.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    raise InputError(f"a model must have a name of the table, got {name!r}. {_suggest(name, list(_BY_NAME))}")


def build(name: str, taxonomy: Taxonomy, *, pruned: Mapping[str, int] | None = None, **options: Any) -> Model:
    """A model with random weights.

    Args:
        name: of a row of the table.
        taxonomy: the classes it shall tell apart.
        pruned: the widths that ``nn.prune.cut`` left. options: keyword arguments of the row's builder.

    Returns:
        The model, in training mode, on the host. ``describe`` tells how to build it again.

    Raises:
        InputError: the table has no such name, or the model no such channels.
    """
    module, _, function = entry(name).build.partition(":")
    model = getattr(import_module(module), function)(taxonomy, **options)
    if pruned:
        import_module("maskwright.nn.prune").narrow(model, pruned)
    model.task = getattr(model, "task", entry(name).task)
    model.built = (name, {**options, **({"pruned": dict(pruned)} if pruned else {})})
    return model


def describe(model: Model) -> dict[str, Any]:
    """What a checkpoint must say about its model for ``load`` to build it again; JSON values.

    Keys are ``version``, ``model``, ``options``, ``taxonomy`` and ``resize``; add a ``card`` if there is one.

    Raises:
        InputError: the model was not made by ``build`` or ``load``.
    """
    built: tuple[str, dict[str, Any]] | None = getattr(model, "built", None)
    if built is None:
        raise InputError("only models made by build or load can be described; this one's name is unknown.")
    name, options = built
    # Backbone weights from a hub were only a start; the checkpoint has its own.
    plain = {key: value for key, value in options.items() if key not in ("pretrained", "resize")}
    return {
        "version": version("maskwright"),
        "model": name,
        "options": plain,
        "taxonomy": model.taxonomy.to_json(),
        "resize": asdict(model.resize),
    }


def load(
    name_or_path: str | os.PathLike[str] = "embedded",
    weights: str | os.PathLike[str] | None = None,
    *,
    taxonomy: Taxonomy | None = None,
    commercial: bool = False,
    allow_missing: Sequence[str] | str = (),
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Model:
    """A model with its weights, ready to predict.

    ``load()`` gives the weights that ship with the package; ``load("runs/nuclei")`` the best of a training;
    ``load("mask-rcnn-r50", weights="model_final.pkl")`` a checkpoint of detectron2 or torchvision, recognized by its
    contents; ``load("mask-rcnn-r50", weights=..., taxonomy=mine, allow_missing=("head",))`` the same with a new head.

    Args:
        name_or_path: a model of the table; or weights that say their model themselves: a run directory, a checkpoint
            that maskwright wrote, a published name, or the folder of an exported model.
        weights: for a model of the table: a run directory, a checkpoint in its origin's own form, or a published
            name. ``None`` leaves the weights random.
        taxonomy: the classes; by default those of the weights; for random ones COCO's 80, or its 133 for maps.
        commercial: refuse weights whose license does not allow commercial use.
        allow_missing: parts that may be missing or of another shape: leading parts of parameter names, or ``"head"``
            for the layers whose size depends on the classes.
        device: where to put the model; the host by default.
        progress: called with (bytes so far, bytes in all or ``None``) while published weights are downloaded.

    Returns:
        The model in evaluation mode. ``model.report`` says which tensors were loaded (``None`` for random weights),
        ``model.card`` what is known about the weights (a dictionary, maybe empty).

    Raises:
        InputError: unknown names (with the closest known ones), files that are missing, damaged or of another model,
            or a license that was refused.
    """
    name = os.fspath(name_or_path)
    if weights is None and (Path(name) / "artifact.json").is_file():
        if taxonomy is not None or allow_missing:
            raise InputError(
                f"{name} is an exported artifact: its classes and layers are fixed. Load what it was made of."
            )
        from maskwright.export import artifact

        return cast(Any, artifact.load(name, build, device=device))
    if name not in _BY_NAME and weights is not None:
        raise InputError(f"with weights, name a model of the table, got {name!r}. {_suggest(name, list(_BY_NAME))}")
    if name not in _BY_NAME:
        model = _load_weights(_locate(name, commercial, progress), None, taxonomy, allow_missing)
    elif weights is not None:
        model = _load_weights(_locate(weights, commercial, progress), name, taxonomy, allow_missing)
    else:
        model = _random(name, taxonomy)
    network: Any = model
    return network.to(device).eval() if device is not None else network.eval()


# ---- finding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    row: Published | None = None


def _locate(weights: str | os.PathLike[str], commercial: bool, progress: Progress | None) -> _Found:
    """The file that holds these weights, downloaded if need be."""
    name = os.fspath(weights)
    if is_published(name):
        row = find(name)
        check_license(row, commercial=commercial)
        path = packaged(row)
        if path is None:
            if not row.url:
                raise InputError(
                    f"{row.name} cannot be downloaded by a program: {row.note}. Fetch the file, then load "
                    f"{row.model} with its path as weights."
                )
            from maskwright.weights.hub import download

            path = download(row.url, row.sha256, progress=progress)
        return _Found(path, row)
    path = Path(name)
    if path.is_dir():
        for file in ("best.safetensors", "last.safetensors"):
            if (path / file).is_file():
                return _Found(path / file)
        raise InputError(
            f"a run directory holds best.safetensors or last.safetensors, but {path} has neither. "
            "Has its training written a checkpoint yet?"
        )
    if path.exists():
        return _Found(path)
    known = [*_BY_NAME, *(row.name for row in published())]
    raise InputError(
        f"there is no file or folder {name!r}, and no model or published weights of that name. {_suggest(name, known)}"
    )


def _suggest(name: str | os.PathLike[str], known: Sequence[str]) -> str:
    close = get_close_matches(os.fspath(name), known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(known)}."


# ---- loading --------------------------------------------------------------------------------------------------------


def _random(name: str, taxonomy: Taxonomy | None) -> Model:
    from maskwright.weights.coco_names import coco_things
    from maskwright.weights.coco_panoptic_names import coco_panoptic

    usual = coco_things if entry(name).task == "instance" else coco_panoptic
    model: Any = build(name, taxonomy or usual())
    model.report, model.card = None, {}
    return model


def _load_weights(
    found: _Found, name: str | None, taxonomy: Taxonomy | None, allow_missing: Sequence[str] | str
) -> Model:
    from maskwright.weights import store
    from maskwright.weights.report import load_state

    if store.is_ours(found.path):
        state, meta = store.read(found.path)
        chosen, options, classes = _recorded(found.path, meta)
        card = dict(meta.get("card") or {})
    else:
        state, chosen, options, classes = _imported(found, name)
        card = {}
    if found.row is not None:
        card = {"name": found.row.name, "license": found.row.license, "origin": found.row.origin, **card}
    if name is not None and chosen != name:
        raise InputError(f"{found.path} holds weights of {chosen}, not of {name}. Load it as {chosen}.")
    try:
        model: Any = build(chosen, taxonomy or classes, **options)
    except TypeError as error:
        raise InputError(
            f"{found.path} asks for options that {chosen} does not have here: {error}. "
            "It was written by another version of maskwright."
        ) from error
    model.report = load_state(model, state, allow_missing, source=str(found.path))
    model.card = card
    return model


def _recorded(path: Path, meta: Mapping[str, Any]) -> tuple[str, dict[str, Any], Taxonomy]:
    """What one of our own checkpoints says about its model."""
    from maskwright.structures import Resize, Taxonomy

    try:
        options = {key: _tuples(value) for key, value in dict(meta["options"]).items()}
        if meta.get("resize") is not None:
            options["resize"] = Resize(**meta["resize"])
        return entry(str(meta["model"])).name, options, Taxonomy.from_json(meta["taxonomy"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not say which model it holds: {type(error).__name__} {error}.") from error


def _tuples(value: Any) -> Any:
    """JSON has lists only; options are tuples."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _imported(found: _Found, name: str | None) -> tuple[dict[str, Any], str, dict[str, Any], Taxonomy]:
    """A checkpoint of another origin, or a bare state dict of ours: its tensors, model, options and classes."""
    from maskwright.weights.coco_names import taxonomy_for
    from maskwright.weights.importers import recognize, require_importer
    from maskwright.weights.pickles import read_state

    state = read_state(found.path)
    importer = recognize(state)
    if importer is not None:
        return importer.convert(state), importer.model(state), importer.options(state), importer.taxonomy(state)
    if _CLASS_LAYER not in state:
        require_importer(state, str(found.path))
    if name is None:
        raise InputError(
            f"{found.path} holds parameters without the name of their model. "
            "Name it too: load(name, weights=...), or --model on the command line."
        )
    return state, name, {}, taxonomy_for(len(state[_CLASS_LAYER]) - 1)
