"""Write ONNX Runtime Web as one script, which a page on a disk can load: ort/embedded.js."""

import base64
import json
import sys
import tarfile
from pathlib import Path

SCRIPT = "ort.wasm.min.js"
FILES = ("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def embed(package: Path, folder: Path) -> Path:
    """Return the path of the script for a package that `npm pack` has made."""
    with tarfile.open(package) as archive:
        read = {
            name: archive.extractfile(f"package/dist/{name}").read() for name in (SCRIPT, *FILES)
        }
    contents = {name: base64.b64encode(read[name]).decode() for name in FILES}
    path = folder / "ort" / "embedded.js"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{read[SCRIPT].decode()}\nvar ortEmbedded = {json.dumps(contents)};\n")
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python embed_runtime.py onnxruntime-web-VERSION.tgz")
    print(embed(Path(sys.argv[1]), Path(__file__).resolve().parent))
