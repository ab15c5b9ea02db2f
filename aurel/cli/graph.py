"""`aurel graph`: write the mean graph of a model as a picture and as data."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aurel.cli.errors import BAD_INPUT, one_line, report
from aurel.cli.face_options import add_face_options

if TYPE_CHECKING:
    from torch import Tensor

    from aurel.cli.checkpoints import ImageModel
    from aurel.facs import AUSet
    from aurel.models.base import AUModel
    from aurel.vision.face_predictor import FacePredictor
    from aurel.vision.image import RGBImage

SYNTHETIC = "synthetic"  # --data: the synthetic faces instead of a folder
_DESCRIPTION = """\
Average the graph of a model over many faces, as a graph of action units (AUs).
The faces are synthetic ones, those in photographs (--data FOLDER), or the test images of a recipe
(--config RECIPE), whose data options can be overridden as in `aurel test`:
  aurel graph --checkpoint FILE --out OUT.png --config RECIPE --data.root FOLDER --data.fold 2

The command writes
  OUT.png          the edges with the largest weights, drawn on a face
  OUT_matrix.png   all weights as a matrix
  OUT.csv          all weights as numbers: row i, column j is the edge from AU j to AU i
  OUT.graphml      the graph for other programs: an edge from j to i if AU i receives from AU j

Of several checkpoints of a model, the mean of their graphs is written, and the correlation of their
weights is printed: a graph that another seed does not repeat is chance. The less the checkpoints
agree on an edge, the fainter is its line.

The meaning of a weight depends on the model: how often j is one of the neighbors of i (k-nearest-
neighbor graphs), the mean attention of i to j, or the mean gate on the edge from j to i (learned
edges; they sum to 1 over j). If the nodes are regions of the face, the weight between two AUs is
the mean over the pairs of their regions.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel graph`."""
    parser = subparsers.add_parser(
        "graph",
        help="draw the learned graph of a model",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        type=Path,
        metavar="FILE",
        help="checkpoint of the model; of several, such as of other seeds, the mean is drawn",
    )
    parser.add_argument("--out", required=True, type=Path, help="picture: .png, .pdf or .svg")
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument(
        "--data",
        default=SYNTHETIC,
        metavar=f"{SYNTHETIC}|FOLDER",
        help="faces to average over: synthetic ones that nothing covers, or those in the "
        f"photographs of a folder ({SYNTHETIC})",
    )
    faces.add_argument(
        "--config",
        metavar="RECIPE",
        help="average over the test images of this recipe; --data.NAME options override it",
    )
    parser.add_argument("--samples", type=int, default=200, help="number of synthetic faces (200)")
    parser.add_argument(
        "--layer", type=int, default=-1, help="index of the graph, from 0 (-1: the last)"
    )
    add_face_options(parser)
    parser.add_argument(
        "--batch-size", type=int, default=32, help="number of faces in a batch (32)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (auto)")
    parser.set_defaults(takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Write pictures and data of a model's graph; return 2 if a photograph cannot be read."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import torch

    from aurel.viz.adjacency import draw_adjacency
    from aurel.viz.face_graph import draw_face_graph

    if args.out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--out must end in .png, .pdf or .svg, got {args.out}")
    if args.rest and args.config is None:
        raise ValueError(f"unrecognized arguments without --config: {' '.join(args.rest)}")
    unread: list[Path] = []
    found = [_graph_of(path, args, unread) for path in args.checkpoint]
    aus, number = found[0].aus, found[0].number
    for path, other in zip(args.checkpoint, found, strict=True):
        if (other.aus, other.number) != (aus, number):
            raise ValueError(
                f"--checkpoint must name checkpoints of one model and its AUs, got {path} with "
                f"{other.number} of {', '.join(other.aus.names)}"
            )
    weights = torch.stack([graph.adjacency for graph in found])
    adjacency = weights.mean(0)
    title = f"{args.checkpoint[0].name}: {number}"
    opacity = None
    if len(found) > 1:
        title = f"Mean of {len(found)} checkpoints: {number}"
        opacity = adjacency.abs() / (adjacency.abs() + weights.std(0)).clamp_min(1e-12)
    matrix_path = args.out.with_stem(f"{args.out.stem}_matrix")
    draw_face_graph(adjacency, aus.names, args.out, title=title, opacity=opacity)
    draw_adjacency(adjacency, aus.names, matrix_path, title=title)
    write_csv(adjacency, aus, args.out.with_suffix(".csv"))
    write_graphml(adjacency, aus, args.out.with_suffix(".graphml"))
    print(f"{number}: {args.out}, {matrix_path.name}, .csv, .graphml")
    if len(found) > 1:
        between = agreement(weights)
        print(
            f"correlation of the weights of two checkpoints: mean {sum(between) / len(between):.2f}"
            f", {min(between):.2f} to {max(between):.2f}"
        )
    return BAD_INPUT if unread else 0


class _Found(NamedTuple):
    """The mean graph of a checkpoint at the level of AUs, and the words for which of them it is."""

    adjacency: Tensor
    aus: AUSet
    number: str


def _graph_of(path: Path, args: argparse.Namespace, unread: list[Path]) -> _Found:
    from aurel.cli.checkpoints import load_image_model
    from aurel.cli.predict_model import make_predictor
    from aurel.models.provenance import warning_of
    from aurel.viz.mean_graph import au_adjacency, mean_graphs

    loaded = load_image_model(path)
    if args.config is None and args.data != SYNTHETIC and (warning := warning_of(loaded.model)):
        report(f"{path}: {warning}")
    predictor = make_predictor(args, loaded, threshold=0.5)
    if args.config is not None:
        batches = _test_images(args, loaded)
    elif args.data == SYNTHETIC:
        batches = _synthetic(args, loaded)
    else:
        batches = _photos(args, predictor, unread)
    graphs = mean_graphs(loaded.model, (batch.to(predictor.device) for batch in batches))
    if not -len(graphs) <= args.layer < len(graphs):
        raise ValueError(f"--layer must be in {-len(graphs)}..{len(graphs) - 1}, got {args.layer}")
    adjacency, aus = au_adjacency(loaded.model, graphs[args.layer])
    number = f"graph {args.layer % len(graphs)} (of 0 to {len(graphs) - 1})"
    return _Found(adjacency.float(), aus, number)


def agreement(weights: Tensor) -> list[float]:
    """Return the correlations of the off-diagonal weights of each two graphs, (R, N, N)."""
    import torch

    pairs = ~torch.eye(weights.shape[1], dtype=torch.bool)
    between = torch.corrcoef(weights[:, pairs]).nan_to_num(nan=0.0)
    rows, columns = torch.triu_indices(len(weights), len(weights), 1)
    found: list[float] = between[rows, columns].tolist()
    return found


def _synthetic(args: argparse.Namespace, loaded: ImageModel[AUModel]) -> Iterator[Tensor]:
    from torch.utils.data import DataLoader

    from aurel.data.synthetic import SHOWN_AUS, SyntheticFaces
    from aurel.data.transforms import EvalTransform

    if args.samples < 1:
        raise ValueError(f"--samples must be at least 1, got {args.samples}")
    shown = [n for n in dict.fromkeys(loaded.model.aus.numbers) if n in SHOWN_AUS]
    faces = SyntheticFaces(
        shown or "BP4D",
        subjects=range(args.samples),
        per_subject=1,
        size=loaded.resize,
        occlusion=0,
        transform=EvalTransform(loaded.resize, loaded.image_size),
    )
    for batch in DataLoader(faces, batch_size=args.batch_size):
        yield batch["image"]


def _test_images(args: argparse.Namespace, loaded: ImageModel[AUModel]) -> Iterator[Tensor]:
    from torch.utils.data import DataLoader

    from aurel.cli.config import parse
    from aurel.training.datasets import test_splits

    options, _, _ = parse("graph", ["--config", args.config, *args.rest])
    data = options.data
    if data.frames is not None:
        raise ValueError(
            f"data.frames must be null for a model of single images, got {data.frames}"
        )
    data.resize, data.crop = loaded.resize, loaded.image_size
    faces: Any = test_splits(data).test
    for batch in DataLoader(faces, batch_size=args.batch_size, num_workers=data.num_workers):
        yield batch["image"]


def _photos(
    args: argparse.Namespace, predictor: FacePredictor, unread: list[Path]
) -> Iterator[Tensor]:
    from aurel.cli.file_progress import file_progress
    from aurel.cli.predict import counted
    from aurel.vision.face_predictor import to_batches
    from aurel.vision.inputs import InputError, find_inputs, is_video, read_photo

    if not Path(args.data).exists():
        raise InputError(f"--data must be {SYNTHETIC} or a folder that exists, got {args.data}")
    files = find_inputs([args.data])
    photos = [path for path in files if not is_video(path)]
    if videos := len(files) - len(photos):
        report(f"skipped {counted(videos, 'video')} in {args.data}: only photographs are used")
    if not photos:
        raise InputError(f"no photographs in {args.data}")
    crops: list[RGBImage] = []
    with file_progress(len(photos)) as on_progress:
        for path in photos:
            try:
                crops += predictor.find(read_photo(path)).crops
            except InputError as error:
                report(f"error: {one_line(error)}")
                unread.append(path)
            on_progress(path, 1, 1)
            if len(crops) >= args.batch_size:
                yield from to_batches(crops, args.batch_size, predictor.preprocessing)
                crops = []
    yield from to_batches(crops, args.batch_size, predictor.preprocessing)


def write_csv(adjacency: Tensor, aus: AUSet, path: Path) -> None:
    """Write the matrix with the names of the AUs as the first column and the header."""
    from aurel.files import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *aus.names])
        for name, row in zip(aus.names, adjacency.tolist(), strict=True):
            writer.writerow([name, *(f"{value:.6g}" for value in row)])


def write_graphml(adjacency: Tensor, aus: AUSet, path: Path) -> None:
    """Write the graph as GraphML: edges j -> i with `weight`, nodes with `title` and `region`."""
    import networkx

    from aurel.files import atomic_path
    from aurel.graph import RelationGraph

    graph = RelationGraph(weights=adjacency[None]).to_networkx(names=aus.names)
    if aus.named:
        regions = dict(zip(aus.names, aus.regions(), strict=True))
        networkx.set_node_attributes(graph, regions, "region")
    networkx.set_node_attributes(graph, dict(zip(aus.names, aus.titles, strict=True)), "title")
    with atomic_path(path) as temporary:
        networkx.write_graphml(graph, temporary)
