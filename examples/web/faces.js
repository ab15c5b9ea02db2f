// Faces in a picture, and the square of each face that a model takes.
"use strict";

const LEAST_SCORE = 0.5;
const MOST_OVERLAP = 0.3;
const STRIDE = 4;
// Side of the cut around a face, in pixels and in longer sides of its box.
const CUT = 128;
const CUT_SIDES = 2;
// Where eyes, nose and corners of the mouth lie in a face chip of side 1, and their weights.
const TEMPLATE = [[0.362, 0.42], [0.638, 0.42], [0.5, 0.57], [0.385, 0.696], [0.615, 0.696]];
const WEIGHTS = [16, 16, 1, 1, 1];
const MIRRORED_POINTS = [1, 0, 2, 4, 3];

// Return the faces in a picture, left to right: {center, side, score, points}.
//
// Each face is searched again in a cut around it, turned upright, and in the mirror image of this
// cut; the mean of both gives its points.
//
// `mostPixels`: a larger picture is shrunk to this area for the first search. `mostFaces`: this
// number of the largest faces is returned.
async function findFaces(session, picture, { mostPixels, mostFaces }) {
  const { width, height } = picture;
  const scale = Math.min(1, Math.sqrt(mostPixels / (width * height)));
  const matrix = new DOMMatrix([scale, 0, 0, scale, 0, 0]);
  const candidates = await search(session, picture, matrix, width * scale, height * scale);
  const faces = [];
  for (const place of candidates.sort((one, other) => other.side - one.side)) {
    if (faces.length === mostFaces) break;
    const close = closeMatrix(place);
    const mirror = new DOMMatrix([-1, 0, 0, 1, CUT, 0]).multiply(close);
    const seen = [];
    for (const matrix of [close, mirror]) {
      const found = await search(session, picture, matrix, CUT, CUT);
      seen.push(found.find(({ center }) => distance(center, place.center) < place.side / 2));
    }
    if (!seen.every(Boolean)) continue;
    const points = seen[0].points.map((point, index) => {
      const mirrored = seen[1].points[MIRRORED_POINTS[index]];
      return point.map((value, axis) => (value + mirrored[axis]) / 2);
    });
    faces.push({ ...seen[0], points });
  }
  return faces.sort((one, other) => one.center[0] - other.center[0]);
}

// Return the matrix that moves a face to the middle of a cut, upright and with a margin.
function closeMatrix({ center, side, points }) {
  const [a, b] = similarity(points, TEMPLATE, WEIGHTS);
  const scale = CUT / (CUT_SIDES * side);
  return new DOMMatrix()
    .translate(CUT / 2, CUT / 2)
    .scale(scale)
    .rotate((Math.atan2(b, a) * 180) / Math.PI)
    .translate(-center[0], -center[1]);
}

// Return the faces in a picture that is moved by a matrix, in pixels of the picture.
async function search(session, picture, matrix, width, height) {
  const [columns, rows] = [width, height].map((length) => 32 * Math.ceil(length / 32));
  const { data } = cutOut(picture, matrix, columns, rows, false);
  const values = new Float32Array(3 * columns * rows);
  for (let color = 0, index = 0; color < 3; color++) {
    for (let pixel = 0; pixel < columns * rows; pixel++) values[index++] = data[4 * pixel + color];
  }
  const images = new ort.Tensor("float32", values, [1, 3, rows, columns]);
  const maps = await session.run({ [session.inputNames[0]]: images });
  const back = matrix.inverse();
  const move = ([x, y]) => {
    const point = back.transformPoint({ x, y });
    return [point.x, point.y];
  };
  return distinct(decode(session.outputNames.map((name) => maps[name]))).map((face) => ({
    center: move([face.x + face.width / 2, face.y + face.height / 2]),
    side: Math.max(face.width, face.height) * Math.hypot(back.a, back.b),
    score: face.score,
    points: face.points.map(move),
  }));
}

// Return the boxes in the maps of CenterFace: scores, log sizes, offsets and points of each cell.
function decode([heat, scale, offset, points]) {
  const [, , rows, columns] = heat.dims;
  const cells = rows * columns;
  const found = [];
  for (let cell = 0; cell < cells; cell++) {
    const score = heat.data[cell];
    if (score < LEAST_SCORE) continue;
    const at = (map, channel) => map.data[channel * cells + cell];
    const height = STRIDE * Math.exp(at(scale, 0));
    const width = STRIDE * Math.exp(at(scale, 1));
    const y = STRIDE * (Math.floor(cell / columns) + at(offset, 0) + 0.5) - height / 2;
    const x = STRIDE * ((cell % columns) + at(offset, 1) + 0.5) - width / 2;
    const five = [0, 2, 4, 6, 8].map((channel) => [
      x + at(points, channel + 1) * width,
      y + at(points, channel) * height,
    ]);
    found.push({ x, y, width, height, score, points: five });
  }
  return found;
}

// Return the faces that overlap no face of a higher score.
function distinct(faces) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => other.score - one.score)) {
    if (kept.every((other) => overlap(face, other) <= MOST_OVERLAP)) kept.push(face);
  }
  return kept;
}

// Return the intersection of two boxes over their union.
function overlap(one, other) {
  const shared = (start, length) =>
    Math.max(
      0,
      Math.min(one[start] + one[length], other[start] + other[length]) -
        Math.max(one[start], other[start])
    );
  const both = shared("x", "width") * shared("y", "height");
  return both / (one.width * one.height + other.width * other.height - both);
}

// Return the matrix that moves a face to its place in the input of a model.
//
// The input is the center square of `size` pixels of a face chip of `chip` pixels.
function faceMatrix(face, { size, chip }) {
  const target = TEMPLATE.map((point) => point.map((place) => place * chip - (chip - size) / 2));
  return new DOMMatrix(similarity(face.points, target, WEIGHTS));
}

// Return the matrix that moves a square to the whole input of a model.
function squareMatrix({ x, y, side }, { size }) {
  const scale = size / side;
  return new DOMMatrix([scale, 0, 0, scale, -x * scale, -y * scale]);
}

// Return the rotation, scale and shift that moves points to a target, by least squares, as the six
// numbers of a matrix.
function similarity(points, target, weights) {
  const total = weights.reduce((sum, weight) => sum + weight);
  const mean = (places, axis) =>
    places.reduce((sum, place, index) => sum + weights[index] * place[axis], 0) / total;
  const [zx, zy, wx, wy] = [mean(points, 0), mean(points, 1), mean(target, 0), mean(target, 1)];
  let [real, imaginary, spread] = [0, 0, 0];
  points.forEach(([px, py], index) => {
    const [x, y] = [px - zx, py - zy];
    const [u, v] = [target[index][0] - wx, target[index][1] - wy];
    real += weights[index] * (x * u + y * v);
    imaginary += weights[index] * (x * v - y * u);
    spread += weights[index] * (x * x + y * y);
  });
  const [a, b] = [real / spread, imaginary / spread];
  return [a, b, -b, a, wx - a * zx + b * zy, wy - b * zx - a * zy];
}

function distance(one, other) {
  return Math.hypot(one[0] - other[0], one[1] - other[1]);
}

// Return the pixels (ImageData) of a picture that is moved by a matrix.
//
// `repeatBorder`: outside the picture, repeat its border pixels; otherwise black.
function cutOut(picture, matrix, width, height, repeatBorder) {
  const small = shrunk(picture, Math.hypot(matrix.a, matrix.b));
  const { width: columns, height: rows } = small;
  const context = newCanvas(width, height);
  context.setTransform(matrix);
  context.scale(picture.width / columns, picture.height / rows);
  const parts = (length) => [[0, 1, -length, length], [length - 1, 1, length, length]];
  if (repeatBorder) {
    const middle = (length) => [0, length, 0, length];
    for (const [x, w, toX, toW] of [...parts(columns), middle(columns)]) {
      for (const [y, h, toY, toH] of [...parts(rows), middle(rows)]) {
        context.drawImage(small, x, y, w, h, toX, toY, toW, toH);
      }
    }
  } else {
    context.drawImage(small, 0, 0);
  }
  return context.getImageData(0, 0, width, height);
}

// Return the picture, halved until `scale` shrinks it by less than two: each pixel is an average.
function shrunk(picture, scale) {
  let small = picture;
  for (let left = scale; left <= 0.5; left *= 2) {
    const { width, height } = small;
    const context = newCanvas(Math.ceil(width / 2), Math.ceil(height / 2));
    context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
    small = context.canvas;
  }
  return small;
}

function newCanvas(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return canvas.getContext("2d", { willReadFrequently: true });
}
