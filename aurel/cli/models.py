"""`aurel models`: what `create_model` can make."""

from __future__ import annotations

import argparse
from typing import Any

IMAGE_SIZE = 224


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel models`."""
    parser = subparsers.add_parser(
        "models",
        help="list the models: paper, parameters, operations, released weights",
        description="List the models that recipes and create_model know.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="only these, such as 'me_*' (all)")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from aurel.cli.console import make_console
    from aurel.models.registry import list_models, model_info

    try:
        from rich.table import Table
    except ImportError as error:
        raise ImportError("aurel models needs rich: pip install 'aurel-au[viz]'") from error

    names = list_models(args.pattern)
    if not names:
        raise ValueError(f"no model matches {args.pattern!r}; there are {', '.join(list_models())}")
    table = Table(box=None, pad_edge=False, show_footer=False)
    for column in ("model", "parameters", "multiply-adds", "authors' weights", "paper"):
        table.add_column(
            column, justify="right" if column.startswith(("param", "multi")) else "left"
        )
    for name in names:
        info = model_info(name)
        parameters, operations = size_of(name)
        weights = "load" if info.author_layout is not None else "none released"
        table.add_row(
            name, f"{parameters / 1e6:.2f} M", f"{operations / 1e9:.2f} G", weights, info.paper
        )
    console = make_console()
    console.print(table)
    console.print(
        f"\nWith the paper's backbone and 12 AUs (open_graphau: 41). Multiply-adds are those of the "
        f"convolutions and matrix products for one {IMAGE_SIZE} x {IMAGE_SIZE} image, without the "
        "graph operations.",
        style="dim",
    )
    return 0


def size_of(name: str) -> tuple[int, int]:
    """Return parameters, and multiply-adds for one image, of a model with its defaults.

    Nothing is computed and no memory is taken: the model is made of shapes alone.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from aurel.models.registry import create_model

    with FakeTensorMode(), torch.no_grad():
        model = create_model(name, num_aus=41 if name.startswith("open_graphau") else 12).eval()
        images = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
        with FlopCounterMode(display=False) as counter:
            model(images)
        parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, counter.get_total_flops() // 2
