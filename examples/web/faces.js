// Faces in a picture, and the square of each face that a model takes.
"use strict";

const LEAST_SCORE = 0.5;
const MOST_OVERLAP = 0.3;
const STRIDE = 4;
// Margin on each side of the box of a face without points, as a fraction of its longer side.
const MARGIN = 0.2;
// Where eyes, nose and corners of the mouth lie in a face chip of side 1, and their weights.
const TEMPLATE = [[0.362, 0.42], [0.638, 0.42], [0.5, 0.57], [0.385, 0.696], [0.615, 0.696]];
const WEIGHTS = [16, 16, 1, 1, 1];

// Return the faces in a picture, left to right: {x, y, width, height, score, points}.
//
// `mostPixels`: a larger picture is shrunk to this area for the search.
async function findFaces(session, picture, mostPixels) {
  const { width, height } = picture;
  const scale = Math.min(1, Math.sqrt(mostPixels / (width * height)));
  const matrix = [scale, 0, 0, scale, 0, 0];
  const side = (length) => 32 * Math.ceil((length * scale) / 32);
  const { data } = cutOut(picture, matrix, side(width), side(height), false);
  const shape = [1, 3, side(height), side(width)];
  const values = new Float32Array(3 * shape[2] * shape[3]);
  for (let index = 0; index < values.length; index++) {
    const pixel = index % (shape[2] * shape[3]);
    values[index] = data[4 * pixel + Math.floor(index / (shape[2] * shape[3]))];
  }
  const input = { [session.inputNames[0]]: new ort.Tensor("float32", values, shape) };
  const maps = await session.run(input);
  const found = decode(session.outputNames.map((name) => maps[name]));
  return distinct(found)
    .map((face) => ({
      ...face,
      ...{ x: face.x / scale, y: face.y / scale },
      ...{ width: face.width / scale, height: face.height / scale },
      points: face.points.map(([x, y]) => [x / scale, y / scale]),
    }))
    .sort((one, other) => one.x - other.x);
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

// Return the matrix of a canvas that moves a face to its place in the input of a model.
//
// The input is the center square of `size` pixels of a face chip of `chip` pixels.
function faceMatrix(face, { size, chip }) {
  const target = TEMPLATE.map((point) => point.map((place) => place * chip - (chip - size) / 2));
  return similarity(face.points, target, WEIGHTS);
}

// Return the matrix of a canvas that moves a square to the whole input of a model.
function squareMatrix({ x, y, side }, { size }) {
  const scale = size / side;
  return [scale, 0, 0, scale, -x * scale, -y * scale];
}

// Return the rotation, scale and shift that moves points to a target, by least squares.
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

// Return the pixels (ImageData) of a picture that is moved by the matrix of a canvas.
//
// `repeatBorder`: outside the picture, repeat its border pixels; otherwise black.
function cutOut(picture, matrix, width, height, repeatBorder) {
  const small = shrunk(picture, Math.hypot(matrix[0], matrix[1]));
  const { width: columns, height: rows } = small;
  const context = newCanvas(width, height);
  context.setTransform(...matrix);
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
