// A LavaGrid level on a canvas, as `LavaGrid.render` draws it, from what a frame holds.

import { page } from "./data.js";

const INKS = page.palette.lavagrid;
const GROUND = ["floor", "wall", "lava", "goal"]; // in the order of the cell codes
const WORDS = ["free", "wall", "lava", "goal"];
const CELL = 64; // pixels

// One frame of one episode: where the agent is, what it has uncovered, and the level.
function frameOf(view, step) {
  const { levels, opened, episode } = view;
  const { height, width } = levels;
  const at = opened.first[episode] + episode + step; // an episode has one frame more than steps
  const bytes = Math.ceil((height * width) / 8);
  const cells = levels.cells.subarray(opened.level_index[episode] * height * width);
  const known = (cell) => ((opened.frames.known[at * bytes + (cell >> 3)] >> (cell & 7)) & 1) === 1;
  const row = opened.frames.position[2 * at];
  const col = opened.frames.position[2 * at + 1];
  return { height, width, cells, known, row, col };
}

// Draws the frame before action `step`, or the last one. `whole` shows cells that are hidden too.
export function drawLavaGrid(canvas, view, step, whole) {
  const { height, width, cells, known, row, col } = frameOf(view, step);
  const pen = sized(canvas, width * CELL, height * CELL);
  for (let cell = 0; cell < height * width; cell += 1) {
    const [x, y] = [(cell % width) * CELL, Math.floor(cell / width) * CELL];
    const hidden = !known(cell);
    pen.fillStyle = hidden && !whole ? INKS.hidden : INKS[GROUND[cells[cell]]];
    pen.fillRect(x, y, CELL, CELL);
    if (hidden) hatch(pen, x, y);
    pen.fillStyle = INKS.line;
    pen.fillRect(x, y + CELL - 2, CELL, 2);
    pen.fillRect(x + CELL - 2, y, 2, CELL);
  }
  const middle = [(col + 0.5) * CELL - 1, (row + 0.5) * CELL - 1];
  pen.fillStyle = INKS.agent;
  pen.beginPath();
  pen.arc(...middle, 0.36 * CELL, 0, 2 * Math.PI);
  pen.fill();
  if (step === view.opened.num_steps[view.episode] && cells[row * width + col] === 2) cross(pen, middle);
}

function sized(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return canvas.getContext("2d");
}

// What is not uncovered, as in the drawing; in the whole level over what is there.
function hatch(pen, x, y) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, CELL, CELL);
  pen.clip();
  pen.strokeStyle = INKS.hatch;
  pen.lineWidth = 3;
  pen.beginPath();
  const period = CELL / 3;
  for (let along = 0; along <= 2 * CELL; along += period) {
    pen.moveTo(x + along, y);
    pen.lineTo(x + along - CELL, y + CELL);
  }
  pen.stroke();
  pen.restore();
}

function cross(pen, [x, y]) {
  const arm = 0.24 * CELL;
  pen.strokeStyle = INKS.fatal;
  pen.lineWidth = 0.1 * CELL;
  pen.beginPath();
  for (const side of [-1, 1]) {
    pen.moveTo(x - arm, y - side * arm);
    pen.lineTo(x + arm, y + side * arm);
  }
  pen.stroke();
}

// The picture in words.
export function tellLavaGrid(view, step) {
  const { height, width, cells, known, row, col } = frameOf(view, step);
  const around = [
    ["up", row - 1, col],
    ["right", row, col + 1],
    ["down", row + 1, col],
    ["left", row, col - 1],
  ].map(([way, r, c]) => {
    if (r < 0 || c < 0 || r >= height || c >= width) return `${way}: the edge`;
    return `${way}: ${known(r * width + c) ? WORDS[cells[r * width + c]] : "hidden"}`;
  });
  return `A grid of ${height} by ${width} cells, the agent in row ${row + 1}, column ${col + 1}; ${around.join(", ")}`;
}
