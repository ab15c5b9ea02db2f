"""OpenGraphAU: ME-GraphAU for many AUs, some of them of one side of the face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aurel.facs import (
    AU_SETS,
    OPENGRAPHAU_PARENTS_CORRECTED,
    OPENGRAPHAU_PARENTS_RELEASED,
    AUSet,
)
from aurel.models import me_graphau
from aurel.models.author_keys import open_graphau as author_keys
from aurel.models.me_graphau import (
    FRESH,
    EdgeHead,
    MEGraphAU,
    MEGraphAUConfig,
    MEGraphAUStage1,
    MEGraphAUStage1Config,
)
from aurel.models.registry import Staging, register_model
from aurel.ops.arguments import check_choice

LateralParents = Literal["corrected", "released"]

_PAPER = (
    "OpenGraphAU, github.com/lingjivoo/OpenGraphAU, after Luo et al., Learning Multi-dimensional "
    "Edge Feature-based AU Relation Graph for Facial Action Unit Recognition, IJCAI 2022, "
    "arXiv:2205.01782"
)
_PARENTS: Mapping[str, Sequence[int]] = {
    "corrected": OPENGRAPHAU_PARENTS_CORRECTED,
    "released": OPENGRAPHAU_PARENTS_RELEASED,
}


@dataclass(frozen=True)
class OpenGraphAUConfig(MEGraphAUConfig):
    """Options of `open_graphau`, beside those of `me_graphau`.

    Args:
        backbone: timm's name; weights were released for ResNets, Swin transformers, and
            "vit_base_patch16_sincos", which the authors call MAE.
        lateral_parents: the node that a lateral AU is classified from: "corrected" for the main AU
            of its number, "released" for the authors' table, which has AU11 for AU12L and AU12R by
            mistake.
    """

    lateral_parents: LateralParents = "corrected"


@dataclass(frozen=True)
class OpenGraphAUStage1Config(MEGraphAUStage1Config):
    """Options of `open_graphau_stage1`, beside those of `me_graphau_stage1`.

    Args:
        backbone: as for `open_graphau`.
        lateral_parents: as for `open_graphau`.
    """

    lateral_parents: LateralParents = "corrected"

    @staticmethod
    def defaults(aus: AUSet, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the authors' k, or the number of nodes where that is smaller."""
        return {"k": min(4, sum(not side for side in aus.sides))}


def nodes_read(aus: AUSet, lateral_parents: LateralParents = "corrected") -> tuple[int, ...]:
    """Return the index of the node that each column is classified from.

    The nodes of the graph are the main AUs, those without a side, in their order. A main AU is
    classified from its own node, a lateral AU from the node of a main AU.

    Args:
        aus: the AU set.
        lateral_parents: see `OpenGraphAUConfig`.

    Raises:
        ValueError: `lateral_parents` is unknown, or the set lacks the main AU of a lateral one.
    """
    check_choice("lateral_parents", lateral_parents, tuple(_PARENTS))
    if not any(aus.sides):
        return tuple(range(len(aus)))
    parents, numbers = _PARENTS[lateral_parents], AU_SETS["OpenGraphAU"].numbers
    laterals = numbers[-len(parents) :]
    parent_of = {lateral: numbers[node] for lateral, node in zip(laterals, parents, strict=True)}
    columns = list(zip(aus.numbers, aus.sides, strict=True))
    main = [number for number, side in columns if not side]
    parents_of_columns = [parent_of.get(au, au) if side else au for au, side in columns]
    missing = [
        f"AU{number:02d} for {name}"
        for name, number in zip(aus.names, parents_of_columns, strict=True)
        if number not in main
    ]
    if missing:
        raise ValueError(
            "aus must hold the main AU of every lateral one "
            f"(lateral_parents={lateral_parents!r}), got {aus.name} without {', '.join(missing)}"
        )
    return tuple(main.index(number) for number in parents_of_columns)


@register_model(
    "open_graphau_stage1",
    OpenGraphAUStage1Config,
    paper=_PAPER,
    outputs=("probs", "graphs"),
    losses={"asymmetric": 1.0},
    author_layout=author_keys.STAGE1,
    num_aus=len(AU_SETS["OpenGraphAU"]),
)
class OpenGraphAUStage1(MEGraphAUStage1):
    r"""OpenGraphAU, stage 1: a graph of the k most similar main AUs, with outputs of lateral AUs.

    .. math::
        p_m = \cos(x_{r(m)}, \mathrm{ReLU}(s_m))

    for the nodes x of ME-GraphAU's stage 1 over the main AUs. Output m is classified from node
    r(m): a main AU from its own, a lateral AU (AU12L) from that of a main one (AU12). The authors'
    weights are for 27 main and 14 lateral AUs, the set "OpenGraphAU"; any set is valid that holds
    the main AUs of its lateral ones, in any order.

    Args:
        config: options.
        aus: the M AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: a lateral AU without its main AU.

    Source: the authors' code; the nodes are those of section 3.1 of the paper. Loading the authors'
    weights sets `lateral_parents` to "released". In their code l1 is the Euclidean distance and l2
    the Manhattan distance; `metric` has the usual names.
    """

    config: OpenGraphAUStage1Config

    def _nodes_read(self) -> Sequence[int]:
        return nodes_read(self.aus, self.config.lateral_parents)


def start_from_stage1(model: OpenGraphAU, stage1: OpenGraphAUStage1) -> OpenGraphAU:
    """Copy backbone, projection, AU-specific features and classifier of stage 1 to stage 2.

    Args:
        model: stage 2.
        stage1: trained, with the same backbone, width, AUs and lateral parents.

    Returns:
        `model`; its edge layers keep their initial weights.

    Raises:
        ValueError: the two differ in AUs, lateral parents, backbone or width.
    """
    expected, found = model.config.lateral_parents, stage1.config.lateral_parents
    if found != expected:
        raise ValueError(
            f"lateral_parents of stage 1 must be {expected} as in stage 2, got {found}"
        )
    me_graphau.start_from_stage1(model, stage1)
    return model


@register_model(
    "open_graphau",
    OpenGraphAUConfig,
    paper=_PAPER,
    outputs=("probs", "graphs"),
    losses={"asymmetric": 1.0},
    starts_from={"open_graphau_stage1": Staging(start_from_stage1, FRESH)},
    author_layout=author_keys.STAGE2,
    num_aus=len(AU_SETS["OpenGraphAU"]),
)
class OpenGraphAU(MEGraphAU):
    """OpenGraphAU, stage 2: a graph of main AUs with learned edges, with outputs of lateral AUs.

    Stage 2 of ME-GraphAU with the outputs of `OpenGraphAUStage1`, with the ReLU of the graph
    convolution before the residual, and without edge logits: the authors train on AUs only.

    Args:
        config: options.
        aus: the M AUs.
        pretrained: load the published weights of the backbone.

    Raises:
        ValueError: a lateral AU without its main AU.

    Source: the authors' code; the edges are those of section 3.2 of the paper. It starts from a
    trained stage 1 (`start_from_stage1`). Loading the authors' weights sets `lateral_parents` to
    "released".
    """

    config: OpenGraphAUConfig

    def _make_head(self, channels: int) -> EdgeHead:
        nodes = nodes_read(self.aus, self.config.lateral_parents)
        return EdgeHead(channels, nodes, "outside", classify_edges=False)
