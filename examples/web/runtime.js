// ONNX Runtime Web, and the parts of ONNX files that it does not read.
"use strict";

const ORT_VERSION = "1.30.0";
// The files of the npm package, with their hashes.
const ORT_FILES = {
  "ort.wasm.min.js": "sha384-Bw6URI+Gvoadw0do7/QrSHUC9D1vCYYK5OSqChFyhyV5mzPL4oe2rOAFljAnS8Sq",
  "ort-wasm-simd-threaded.mjs":
    "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
  "ort-wasm-simd-threaded.wasm":
    "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
};
const CDN = `https://cdn.jsdelivr.net/npm/onnxruntime-web@${ORT_VERSION}/dist/`;

let runtime = null;

// Return the runtime, `ort`; it is loaded once.
function loadRuntime() {
  runtime ??= startRuntime().catch((error) => {
    runtime = null;
    throw error;
  });
  return runtime;
}

async function startRuntime() {
  const [script, module, wasm] = Object.keys(ORT_FILES);
  let files;
  try {
    // A page on a disk may load scripts, but not fetch files: the script contains the others.
    await addScript("ort/embedded.js");
    files = [fromBase64(ortEmbedded[module]), fromBase64(ortEmbedded[wasm])];
  } catch {
    try {
      await addScript(CDN + script, ORT_FILES[script]);
      files = await Promise.all([fetchFile(module), fetchFile(wasm)]);
    } catch {
      throw new Error(
        "ONNX Runtime Web must be in the folder ort, or there must be a connection to " +
          "cdn.jsdelivr.net; README.md describes the folder"
      );
    }
  }
  const blob = new Blob([files[0]], { type: "text/javascript" });
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(blob) };
  ort.env.wasm.wasmBinary = files[1];
  ort.env.wasm.numThreads = 1;
  return ort;
}

function addScript(src, integrity) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, integrity ? { src, integrity, crossOrigin: "anonymous" } : { src });
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${src} cannot be loaded`));
    document.head.append(script);
  });
}

async function fetchFile(name) {
  const response = await fetch(CDN + name, { integrity: ORT_FILES[name] });
  return new Uint8Array(await response.arrayBuffer());
}

function fromBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let index = 0; index < bytes.length; index++) bytes[index] = characters.charCodeAt(index);
  return bytes;
}

async function openSession(bytes) {
  const { InferenceSession } = await loadRuntime();
  return InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

// Return the model in a file of `aurel export`: {session, about}.
async function openModel(bytes, about) {
  if (!about.preprocessing || !about.names) {
    throw new Error("the model must be exported by this version of aurel");
  }
  const session = await openSession(bytes);
  if (session.inputNames[0] !== "images" || !session.outputNames.includes("probs")) {
    const inputs = session.inputNames.join(", ");
    throw new Error(`the model must take single images and return probs, got one of ${inputs}`);
  }
  return { session, about };
}

// Return the probabilities (F, N) of square pictures, ImageData of the size of the model.
async function predict({ session, about }, pictures) {
  const { size, mean, std } = about.preprocessing;
  const pixels = size * size;
  const values = new Float32Array(pictures.length * 3 * pixels);
  pictures.forEach(({ data }, picture) => {
    for (let color = 0; color < 3; color++) {
      const start = (3 * picture + color) * pixels;
      for (let pixel = 0; pixel < pixels; pixel++) {
        values[start + pixel] = (data[4 * pixel + color] / 255 - mean[color]) / std[color];
      }
    }
  });
  const images = new ort.Tensor("float32", values, [pictures.length, 3, size, size]);
  const { probs } = await session.run({ images }, ["probs"]);
  const count = probs.dims[1];
  return pictures.map((_, picture) => probs.data.slice(picture * count, (picture + 1) * count));
}

// Yield the fields of a message of protobuf that have a length: {number, start, end}.
function* fields(bytes, start = 0, end = bytes.length) {
  let next = start;
  const varint = () => {
    let value = 0;
    let scale = 1;
    let byte;
    do {
      byte = bytes[next++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (next < end) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 2) {
      const [length, start] = [varint(), next];
      next += length;
      if (next <= end) yield { number: Math.floor(tag / 8), start, end: next };
    } else if (kind === 0) {
      varint();
    } else if (kind === 1 || kind === 5) {
      next += kind === 1 ? 8 : 4;
    } else {
      next = Infinity;
    }
    if (next > end) throw new Error("the file must be a whole ONNX file");
  }
}

// Yield the fields at the end of a path of field numbers.
function* below(bytes, [number, ...path], start, end) {
  for (const field of fields(bytes, start, end)) {
    if (field.number !== number) continue;
    if (path.length) yield* below(bytes, path, field.start, field.end);
    else yield field;
  }
}

// Return the description that `aurel export` has stored in an ONNX file, or null.
function description(bytes) {
  const text = (field) => new TextDecoder().decode(bytes.subarray(field.start, field.end));
  for (const property of below(bytes, [14])) {
    const [key, value] = [...fields(bytes, property.start, property.end)].map(text);
    if (key === "aurel") return JSON.parse(value);
  }
  return null;
}

// Return an ONNX file whose inputs and outputs have any batch, height and width.
//
// A size of one byte is overwritten by an empty denotation, which has no effect.
function withFreeSizes(bytes) {
  const changed = bytes.slice();
  for (const number of [11, 12]) {
    for (const value of below(bytes, [7, number])) {
      [...below(bytes, [2, 1, 2, 1], value.start, value.end)].forEach(({ start, end }, index) => {
        if (index !== 1 && end - start === 2 && bytes[start] === 8) changed.set([26, 0], start);
      });
    }
  }
  return changed;
}
