"""`aurel models`: list the models of `create_model`."""

from __future__ import annotations

import argparse
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aurel.models.registry import ModelInfo

CLIP_FRAMES = 16


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel models`."""
    parser = subparsers.add_parser(
        "models",
        help="list the models: paper, parameters, operations, released weights",
        description="List the models for recipes and create_model.",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="list only names such as 'me_*' (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Print a table of the models, their summaries and their papers."""
    from aurel.cli.console import make_console
    from aurel.models.registry import list_models, model_info

    try:
        from rich.table import Table
    except ImportError as error:
        raise ImportError("aurel models needs rich: pip install 'aurel-au[viz]'") from error

    names = list_models(args.pattern)
    if not names:
        raise ValueError(
            f"pattern must match a model, got {args.pattern!r}; models: {', '.join(list_models())}"
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    table.add_column("image size", justify="right")
    table.add_column("authors' weights")
    for name in names:
        info = model_info(name)
        parameters, operations = size_of(name)
        table.add_row(
            name,
            f"{parameters / 1e6:.2f} M",
            f"{operations / 1e9:.2f} G",
            f"{info.image_size} x {info.image_size}",
            _weights_column(info),
        )
    console = make_console()
    console.print(table)
    console.print(f"\n{_NOTE}", style="dim")
    for name in names:
        info = model_info(name)
        console.print(f"\n[bold]{name}[/]  {info.summary}\n{info.paper}")
    return 0


def _weights_column(info: ModelInfo) -> str:
    if info.weights_released:
        return "released"
    return "none released" if info.author_layout is None else "none released; layout known"


_NOTE = (
    "With the paper's backbone and image size, and 12 AUs (open_graphau*: 41). Multiply-adds\n"
    "count convolutions and matrix products, for one image or one frame of a clip. aurel weights\n"
    "lists the files of released weights; aurel convert reads those in a known layout."
)


@cache
def size_of(name: str) -> tuple[int, int]:
    """Return the numbers of parameters and of multiply-adds for one image, with default options.

    The model is created on the meta device, without data. A model that takes clips is counted on
    a clip of 16 frames, divided by 16.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from aurel.models.registry import create_model, model_info
    from aurel.ops.flop_formulas import flop_formulas

    info = model_info(name)
    frames = CLIP_FRAMES if info.takes_clips else 1
    with torch.device("meta"), torch.no_grad():
        model = create_model(name).eval()
        images = torch.zeros(frames, 3, info.image_size, info.image_size)
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            model(images[None] if info.takes_clips else images)
        parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, counter.get_total_flops() // (2 * frames)
