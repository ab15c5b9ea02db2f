// The controls of the page: files and camera in, squares and bars out.
"use strict";

const byId = (id) => document.getElementById(id);
// The search for faces.
const IN_PHOTO = { mostPixels: 1024 * 1024, mostFaces: Infinity };
const IN_FRAME = { mostPixels: 320 * 240, mostFaces: 1 };
// Longest side of the picture shown, and shortest side of a square, in pixels.
const SHOWN_SIDE = 1280;
const LEAST_SIDE = 16;

let model = null;
let detector = null;
let picture = null; // a photo, or the last frame of the camera
let stream = null;
let square = null; // {x, y, side}, which the user has chosen
let places = []; // {matrix, input, probs} of each face
let chosen = 0;

let updating = null;
let outdated = false;

// Find the faces of the picture and show their AUs; during a run, run once more after it.
async function update() {
  outdated = true;
  updating ??= (async () => {
    while (outdated) {
      outdated = false;
      await predictPicture().catch((error) => report(error.message, true));
    }
    updating = null;
  })();
  return updating;
}

async function predictPicture() {
  const frame = stream ? await createImageBitmap(byId("video")) : null;
  if (stream) picture = frame;
  if (picture === null) return;
  const shown = picture;
  const start = performance.now();
  const found = model ? await matrices(shown) : [];
  const { size } = model ? model.about.preprocessing : {};
  const inputs = found.map((matrix) => cutOut(shown, matrix, size, size, true));
  const probs = inputs.length ? await predict(model, inputs) : [];
  places = found.map((matrix, index) => ({ matrix, input: inputs[index], probs: probs[index] }));
  chosen = Math.min(chosen, Math.max(0, places.length - 1));
  showPicture(shown);
  showFaces();
  showResult();
  const time = Math.round(performance.now() - start);
  if (!model) report("Choose a model.");
  else if (!places.length) report("No face was found.");
  else {
    const count = `${places.length} ${places.length === 1 ? "face" : "faces"}`;
    report(stream ? count : `${count}, ${time} ms`);
  }
}

// Return the matrix that moves each face to the input of the model; the largest face of a camera.
async function matrices(shown) {
  const { preprocessing } = model.about;
  if (!detector) return [squareMatrix(square ?? centerSquare(shown), preprocessing)];
  const faces = await findFaces(detector, shown, stream ? IN_FRAME : IN_PHOTO);
  return faces.map((face) => faceMatrix(face, preprocessing));
}

function centerSquare(shown) {
  const { width, height } = shown;
  const side = Math.min(width, height);
  return { x: (width - side) / 2, y: (height - side) / 2, side };
}

function showPicture(shown) {
  const { width, height } = shown;
  const scale = Math.min(1, SHOWN_SIDE / Math.max(width, height));
  const canvas = byId("picture");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0, canvas.width, canvas.height);
  const line = Math.max(canvas.width, canvas.height) / 300;
  context.font = `${12 * line}px system-ui, sans-serif`;
  places.forEach(({ matrix, input }, index) => {
    const back = matrix.inverse();
    const corners = [[0, 0], [input.width, 0], [input.width, input.width], [0, input.width]]
      .map(([x, y]) => back.transformPoint({ x, y }))
      .map(({ x, y }) => [x * scale, y * scale]);
    const path = new Path2D(`M${corners.join("L")}Z`);
    for (const [color, factor] of [["#000", 2], [index === chosen ? "#ffd400" : "#fff", 1]]) {
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = line * factor;
      context.stroke(path);
      if (places.length === 1) continue;
      const [x, y] = [corners[0][0] + 4 * line, corners[0][1] + 13 * line];
      if (factor === 2) context.strokeText(index + 1, x, y);
      else context.fillText(index + 1, x, y);
    }
  });
  canvas.classList.toggle("choose", !detector);
  byId("hint").hidden = detector !== null;
  byId("picture-section").hidden = false;
}

// Show a button for each face, if there are several.
function showFaces() {
  const group = byId("faces");
  if (places.length < 2) return group.replaceChildren();
  if (group.children.length !== places.length) {
    group.replaceChildren(...places.map((_, index) => {
      const label = document.createElement("label");
      const button = document.createElement("input");
      Object.assign(button, { type: "radio", name: "face" });
      button.onchange = () => {
        chosen = index;
        showPicture(picture);
        showResult();
      };
      label.append(button, ` Face ${index + 1}`);
      return label;
    }));
  }
  group.children[chosen].firstChild.checked = true;
}

function showResult() {
  byId("result").hidden = places.length === 0;
  if (places.length === 0) return;
  const { input, probs } = places[chosen];
  const canvas = byId("input");
  canvas.width = canvas.height = input.width;
  canvas.getContext("2d").putImageData(input, 0, 0);
  const threshold = Number(byId("threshold").value);
  byId("threshold-value").value = threshold.toFixed(2);
  [...byId("aus").rows].forEach((row, index) => {
    const present = probs[index] >= threshold;
    const [fill, mark] = row.querySelector(".bar").children;
    fill.style.width = `${100 * probs[index]}%`;
    mark.style.left = `${100 * threshold}%`;
    Object.assign(row.querySelector("data"), {
      value: probs[index],
      textContent: probs[index].toFixed(2),
    });
    row.lastChild.textContent = present ? "yes" : "no";
    row.classList.toggle("present", present);
  });
}

function makeRows({ names, titles }) {
  byId("aus").replaceChildren(...names.map((name, index) => {
    const row = document.createElement("tr");
    row.innerHTML =
      '<th scope="row"></th><td><div class="bar" aria-hidden="true"><div></div><div></div></div>' +
      "</td><td><data></data></td><td></td>";
    const title = document.createElement("small");
    title.textContent = titles[index] === name ? "" : titles[index];
    row.firstChild.append(name, title);
    return row;
  }));
}

// Open a model, a face detector or a photo.
async function open(file) {
  report(`Opening ${file.name} ...`);
  try {
    if (/\.onnx$/i.test(file.name)) await openOnnx(new Uint8Array(await file.arrayBuffer()));
    else await openPhoto(file);
  } catch (error) {
    return report(`${file.name}: ${error.message}`, true);
  }
  if (picture === null) return report("Choose a photo, or start the camera.");
  await update();
}

async function openOnnx(bytes) {
  const about = description(bytes);
  if (about !== null) {
    model = await openModel(bytes, about);
    makeRows(about);
    return;
  }
  const session = await openSession(withFreeSizes(bytes));
  if (session.inputNames.length !== 1 || session.outputNames.length !== 4) {
    throw new Error("the file must be a model of aurel export, or the face detector CenterFace");
  }
  detector = session;
}

async function openPhoto(file) {
  const photo = await createImageBitmap(file).catch(() => {
    throw new Error("the photo must be a picture that this browser shows, such as JPEG or PNG");
  });
  stopCamera();
  picture = photo;
  square = null;
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("the page must come from https, localhost or a file to use the camera");
  }
  stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  const video = byId("video");
  video.srcObject = stream;
  await video.play();
  square = null;
  Object.assign(byId("camera"), { textContent: "Stop the camera", disabled: false });
  while (stream) {
    await update();
    await new Promise(requestAnimationFrame);
  }
}

// Stop the camera; its last frame stays.
function stopCamera() {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("camera").textContent = "Start the camera";
}

function report(text, isError = false) {
  // Screen readers read every change.
  if (byId("status").textContent !== text) byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

for (const id of ["model", "detector", "photo"]) {
  byId(id).onchange = ({ target }) => target.files.length && open(target.files[0]);
  // A file that has changed on the disk can be chosen once more.
  byId(id).onclick = ({ target }) => (target.value = "");
}
byId("camera").onclick = () => {
  if (stream) return stopCamera();
  byId("camera").disabled = true;
  startCamera().catch((error) => {
    byId("camera").disabled = false;
    report(`Camera: ${error.message}`, true);
  });
};
byId("threshold").oninput = showResult;

document.ondragover = (event) => event.preventDefault();
document.ondrop = async (event) => {
  event.preventDefault();
  for (const file of event.dataTransfer.files) await open(file);
};

// A square from the point where the pointer went down to where it is.
byId("picture").onpointerdown = (event) => {
  if (detector) return;
  const canvas = event.target;
  const scale = picture.width / canvas.clientWidth;
  const place = ({ offsetX, offsetY }) => [offsetX * scale, offsetY * scale];
  const [startX, startY] = place(event);
  canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = (moved) => {
    const [x, y] = place(moved);
    const side = Math.max(Math.abs(x - startX), Math.abs(y - startY));
    if (side < LEAST_SIDE) return;
    square = { x: startX - (x < startX) * side, y: startY - (y < startY) * side, side };
    update();
  };
  canvas.onpointerup = canvas.onpointercancel = () => (canvas.onpointermove = null);
};

byId("picture").onkeydown = (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const grows = { "+": 1.1, "=": 1.1, "-": 1 / 1.1 };
  if (detector || !(event.key in moves || event.key in grows)) return;
  event.preventDefault();
  const { x, y, side } = square ?? centerSquare(picture);
  const [dx, dy] = moves[event.key] ?? [0, 0];
  const longer = Math.max(LEAST_SIDE, side * (grows[event.key] ?? 1));
  const shift = (side - longer) / 2;
  square = { x: x + 0.05 * side * dx + shift, y: y + 0.05 * side * dy + shift, side: longer };
  update();
};
