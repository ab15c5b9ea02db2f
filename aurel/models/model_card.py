"""The model card of a model: its AUs, training data, protocol, scores and license."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aurel.models.base import AUModel
from aurel.models.provenance import warning_of
from aurel.models.registry import info_of

_USE = """\
```python
from aurel.models import AUModel

model = AUModel.from_pretrained("owner/name")  # the name of this repository
output = model(images)  # normalized, (B, 3, H, W)
print(dict(zip(model.aus.names, output.probs[0])))
```"""


def model_card(model: AUModel, *, protocol: str, scores: Mapping[str, float], license: str) -> str:
    """Return the text of README.md for `model`; see `aurel.models.hub.save_pretrained`."""
    info = info_of(model)
    warning = warning_of(model)
    parts = [
        f"---\nlibrary_name: aurel\nlicense: {license}\n"
        "tags: [facial-action-units, aurel]\npipeline_tag: image-classification\n---",
        f"# {info.name}, {len(model.aus)} action units",
        info.summary,
        f"**Note:** {warning}." if warning else "",
        "## Action units",
        _table(("column", "AU", "name"), _au_rows(model)),
        "## Training data",
        ", ".join(model.trained_on) or "Not recorded.",
        "## Protocol",
        protocol or "Not recorded.",
        "## Scores",
        _table(("score", "value"), [(name, f"{value:g}") for name, value in scores.items()])
        if scores
        else "Not recorded.",
        "## Images",
        _images(model),
        "## Use",
        _USE,
        f"## Source\n\n{info.paper}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _au_rows(model: AUModel) -> list[tuple[str, str, str]]:
    pairs = zip(model.aus.names, model.aus.titles, strict=True)
    return [(str(column), name, title) for column, (name, title) in enumerate(pairs)]


def _images(model: AUModel) -> str:
    about = model.preprocessing
    if about is None:
        size = model.image_size or info_of(model).image_size
        return f"{size} x {size} pixels, normalized with ImageNet's mean and standard deviation."
    return (
        f"{about['size']} x {about['size']} pixels, alignment {about['alignment']}, mean "
        f"{list(about['mean'])}, standard deviation {list(about['std'])}."
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
