"""Models as ONNX files, each compared with its model before it is kept."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aurel.data.preprocessing import Preprocessing
from aurel.files import atomic_path
from aurel.models.base import AUModel
from aurel.models.checkpoint import describe
from aurel.models.registry import info_of
from aurel.ops.backend import use_backend
from aurel.output import AUOutput


def export_onnx(
    model: AUModel,
    path: str | Path,
    *,
    image_size: int | None = None,
    resize: int | None = None,
    frames: int = 16,
    opset: int | None = None,
    tolerance: float = 1e-4,
) -> dict[str, float]:
    """Write a model as an ONNX file, run it in onnxruntime and compare.

    The file takes ``images`` (B, 3, S, S), or ``clips`` (B, T, 3, S, S), as the model does, for any
    B and T. Its outputs are the fields of `AUOutput` that the model fills, with ``region_logits_0``
    and so on for those of each region. It is the model in eval mode, in plain operators of ONNX.
    The key "aurel" of its metadata holds, as JSON, the name of the model, its options, its AUs in
    the order of the columns with their names and titles, and the preprocessing of the images.

    Args:
        model: made by `create_model`.
        path: the file to write; missing folders are created.
        image_size: S, pixels; None for that of the model's config, or else of its paper.
        resize: side in pixels of the face chip whose center square is the input; None for the
            published 256 / 224 of S.
        frames: T of the clip that is traced.
        opset: version of ONNX's operators; None for the one that torch prefers.
        tolerance: largest absolute difference allowed; relative to the largest value of an output
            where that is above 1.

    Returns:
        The largest difference of each output, by its name.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: the model is not registered, does not take images of this size, or has the
            relation head "chain", whose recursion over any number of frames ONNX cannot express.
        RuntimeError: the outputs of the file differ by more than `tolerance`; no file is kept.
    """
    _onnxruntime()
    if model.config.relation_head == "chain":
        raise ValueError("relation_head must be None or 'pairwise' in an ONNX file, got 'chain'")
    info = info_of(model)
    size = image_size or model.image_size or info.image_size
    training = model.training
    model.eval()
    try:
        example = _random_input(model, 2, frames, size)
        program = _onnx_program(model, example, info.inputs, opset)
        program.model.metadata_props["aurel"] = json.dumps(_about(model, size, resize))
        images = _random_input(model, 3, frames + 1, size)
        with torch.no_grad():
            expected = named_outputs(model(images))
    finally:
        model.train(training)
    return _write_checked(program, path, images, expected, tolerance)


def named_outputs(output: AUOutput) -> dict[str, Tensor]:
    """Return the tensors that a model predicts, by their names in an ONNX file."""
    named: dict[str, Tensor] = {}
    for field in fields(output):
        value = getattr(output, field.name)
        if isinstance(value, Tensor):
            named[field.name] = value
        elif field.name == "region_logits" and value is not None:
            named |= {f"region_logits_{region}": logits for region, logits in enumerate(value)}
    return named


def _about(model: AUModel, size: int, resize: int | None) -> dict[str, Any]:
    """Return the metadata of a model and of its input, primitive types only."""
    chosen = Preprocessing.of({"size": size, "chip": resize or size * 256 // 224})
    if model.preprocessing is not None:
        chosen = Preprocessing.of(model.preprocessing)
    names = {"names": model.aus.names, "titles": model.aus.titles}
    return {**describe(model), "image_size": size, **names, "preprocessing": asdict(chosen)}


class _Outputs(nn.Module):
    """A model that returns a dict of tensors."""

    def __init__(self, model: AUModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return named_outputs(self.model(images))


def _onnx_program(model: AUModel, example: Tensor, name: str, opset: int | None) -> Any:
    free = {0: "batch", 1: "frames"} if name == "clips" else {0: "batch"}
    sizes = {dim: torch.export.Dim(label, min=dim + 2, max=4096) for dim, label in free.items()}
    with torch.no_grad(), use_backend("definition"):  # plain operators of torch
        program = torch.export.export(_Outputs(model), (example,), dynamic_shapes=(sizes,))
        _sort_by_default(program.graph)
        return torch.onnx.export(
            program,
            input_names=[name],
            output_names=list(named_outputs(model(example))),
            dynamic_shapes=(free,),
            opset_version=opset,
            verbose=False,
        )


def _sort_by_default(graph: torch.fx.Graph) -> None:
    """Replace stable sorts: ONNX sorts by TopK, which keeps the order of equal values anyway."""
    sorts = torch.ops.aten.sort
    for node in graph.find_nodes(op="call_function", target=sorts.stable):
        node.target = sorts.default
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "stable"}


def _random_input(model: AUModel, batch: int, frames: int, size: int) -> Tensor:
    leading = (batch, frames) if model.inputs == "clips" else (batch,)
    device = next(model.parameters()).device
    return torch.rand(*leading, 3, size, size, device=device) * 4 - 2


def _write_checked(
    program: Any, path: str | Path, images: Tensor, expected: dict[str, Tensor], tolerance: float
) -> dict[str, float]:
    """Write an ONNX program if its outputs are the expected ones; return their differences."""
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
        session = _onnxruntime().InferenceSession(temporary, providers=["CPUExecutionProvider"])
        differences = _differences(session, images, expected)
        if not all(difference <= tolerance for difference in differences.values()):
            raise RuntimeError(
                f"the outputs of the ONNX file must differ from the model's by {tolerance} at "
                f"most, got {differences}"
            )
    return differences


def _differences(session: Any, images: Tensor, expected: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest difference of each output of an ONNX session from the expected one."""
    (entry,) = session.get_inputs()
    values = session.run(list(expected), {entry.name: images.cpu().numpy()})
    return {
        name: _difference(torch.from_numpy(value), reference.cpu())
        for value, (name, reference) in zip(values, expected.items(), strict=True)
    }


def _difference(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).abs().max() / expected.abs().max().clamp_min(1))


def _onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("ONNX files need pip install 'aurel-au[export]'") from error
    return onnxruntime
