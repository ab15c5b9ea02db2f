"""`aurel graph`: the graph that a model has learned, as a picture and as data."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.cli.errors import BAD_INPUT, one_line, tell

if TYPE_CHECKING:
    from torch import Tensor

    from aurel.cli.checkpoints import ImageModel
    from aurel.facs import AUSet
    from aurel.models.base import AUModel
    from aurel.vision.face_predictor import FacePredictor
    from aurel.vision.image import RGBImage

SYNTHETIC = "synthetic"  # --data: the embedded faces instead of a folder
_DESCRIPTION = """\
Average the graph that a model builds over many faces, and bring it to the level of action units.
The faces are the embedded ones, those in photographs (--data FOLDER), or the test images of a
recipe, whose data section can be overridden as in `aurel test`:
  aurel graph --checkpoint FILE --out OUT.png --config RECIPE --data.root FOLDER --data.fold 2

Next to the picture OUT.png, a face with the strongest relations, it writes
  OUT_matrix.png   all relations as a matrix
  OUT.csv          the same as numbers: row i is what AU i listens to
  OUT.graphml      the same for graph programs: an edge from j to i where AU i listens to AU j

What a weight is depends on the model: how often j is among the neighbours of i (k-nearest-neighbour
graphs), the mean attention of i to j, or the mean gate on the edge from j to i (learned edges; they
sum to 1 over j). Where nodes are regions of the face, the weight between two AUs is the mean over
the pairs of their regions.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel graph`."""
    parser = subparsers.add_parser(
        "graph",
        help="draw the graph that a model has learned",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="model to look into")
    parser.add_argument("--out", required=True, type=Path, help="picture: .png, .pdf or .svg")
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument(
        "--data",
        default=SYNTHETIC,
        metavar=f"{SYNTHETIC}|FOLDER",
        help="faces to average over: the embedded ones, nothing covering them, or those in the "
        f"photographs of a folder ({SYNTHETIC})",
    )
    faces.add_argument(
        "--config",
        metavar="RECIPE",
        help="average over the test images that this recipe and --data.NAME options name",
    )
    parser.add_argument("--samples", type=int, default=200, help="number of synthetic faces (200)")
    parser.add_argument(
        "--layer", type=int, default=-1, help="which graph of the model, from 0; -1 is the last"
    )
    parser.add_argument(
        "--cropped", action="store_true", help="the photographs are face crops already"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="faces a step (32)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (auto)")
    parser.set_defaults(takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Write pictures and data of a model's graph; return 2 where a photograph was unreadable."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from aurel.cli.checkpoints import load_image_model
    from aurel.cli.predict import make_predictor
    from aurel.viz.adjacency import draw_adjacency
    from aurel.viz.face_graph import draw_face_graph
    from aurel.viz.mean_graph import au_adjacency, mean_graphs

    if args.out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--out must end in .png, .pdf or .svg, got {args.out}")
    if args.rest and args.config is None:
        raise ValueError(f"without --config these are unrecognized: {' '.join(args.rest)}")
    loaded = load_image_model(args.checkpoint)
    predictor = make_predictor(args, loaded, threshold=0.5)
    unread: list[Path] = []
    if args.config is not None:
        batches = _tested(args, loaded)
    elif args.data == SYNTHETIC:
        batches = _synthetic(args, loaded)
    else:
        batches = _photos(args, predictor, unread)
    graphs = mean_graphs(loaded.model, (batch.to(predictor.device) for batch in batches))
    if not -len(graphs) <= args.layer < len(graphs):
        raise ValueError(f"--layer must be in {-len(graphs)}..{len(graphs) - 1}, got {args.layer}")
    adjacency, aus = au_adjacency(loaded.model, graphs[args.layer])

    layer = args.layer % len(graphs)
    title = f"{args.checkpoint.name}: graph {layer} of 0..{len(graphs) - 1}"
    matrix_path = args.out.with_stem(f"{args.out.stem}_matrix")
    draw_face_graph(adjacency, aus.names, args.out, title=title)
    draw_adjacency(adjacency, aus.names, matrix_path, title=title)
    write_csv(adjacency, aus, args.out.with_suffix(".csv"))
    write_graphml(adjacency, aus, args.out.with_suffix(".graphml"))
    print(f"graph {layer} of 0..{len(graphs) - 1}: {args.out}, {matrix_path.name}, .csv, .graphml")
    return BAD_INPUT if unread else 0


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


def _tested(args: argparse.Namespace, loaded: ImageModel[AUModel]) -> Iterator[Tensor]:
    from torch.utils.data import DataLoader

    from aurel.cli.config import parse
    from aurel.training.datasets import test_splits

    options, _, _ = parse("graph", ["--config", args.config, *args.rest])
    data = options.data
    if data.frames is not None:
        raise ValueError(f"data.frames must be null, got {data.frames}: graphs are of images")
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
        tell(f"{counted(videos, 'video')} in {args.data} left out: photographs alone are used")
    if not photos:
        raise InputError(f"no photographs in {args.data}")
    crops: list[RGBImage] = []
    with file_progress(len(photos)) as on_progress:
        for path in photos:
            try:
                crops += predictor.find(read_photo(path)).crops
            except InputError as error:
                tell(f"error: {one_line(error)}")
                unread.append(path)
            on_progress(path, 1, 1)
            if len(crops) >= args.batch_size:
                yield from to_batches(crops, args.batch_size)
                crops = []
    yield from to_batches(crops, args.batch_size)


def write_csv(adjacency: Tensor, aus: AUSet, path: Path) -> None:
    """Write the matrix with the names of the AUs before its rows and above its columns."""
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
