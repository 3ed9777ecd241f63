// A CoinRun level on a canvas: the window round the agent, pixel by pixel as
// `hotoven.envs.coinrun.picture` draws it, and a map of the whole level.
//
// Lengths are whole numbers: sideways 256ths of a cell, upwards within a cell 128ths.

import { page } from "./data.js";

const INKS = page.palette.coinrun;
const SPAN = 13; // cells that the window is wide and high
const SIZE = 64; // cells per side of the world
const SCALE = 28; // pixels per cell of the window
const TALL = Math.fround(0.5787); // half the agent's height, cells
const FACES_LEFT = 1, STRIDES = 2, CROSSED = 4; // bits of a pose

// Colours are 32 bits, as a picture's memory holds them: alpha, blue, green, red.
const packed = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const ink = (colour) => packed(...parts(colour));
const inks = (colours) => colours.map(ink);
const [LAVA, GLOW, COIN, SHINE, SAW, HUB, EYE, PUPIL, FATAL] = [
  "lava", "glow", "coin", "shine", "saw", "hub", "eye", "pupil", "fatal",
].map((name) => ink(INKS[name]));
const [AGENTS, STONES, SEAMS, TURFS, CRATES, MONSTERS, HILLS] = [
  "agents", "stones", "seams", "turfs", "crates", "monsters", "hills",
].map((name) => inks(INKS[name]));
const SKIES = INKS.skies.map(parts);
const WHITE = packed(255, 255, 255);
const half = (colour) => ((colour >>> 1) & 0x7f7f7f) + 0xff000000; // of each channel

// What a word of a column holds, as (lowest bit, number of bits): see `level.Layout`.
const part = (word, low, width) => (word >>> low) & ((1 << width) - 1);

// What stands in a column of cells.
function columnOf(level, x) {
  const word = level.columns[x];
  return {
    top: part(word, 0, 7),
    stone: part(word, 7, 6),
    lava: part(word, 13, 6),
    saw: part(word, 19, 1),
    crates: Math.max(part(word, 20, 2), part(word, 22, 2)),
    coin: x === level.coin[0] ? level.coin[1] : -1,
    wood: level.crates[x] & 3,
  };
}

function levelOf(view) {
  const { levels, opened, episode } = view;
  const index = opened.level_index[episode];
  const first = levels.firstMonster[index];
  const count = levels.num_monsters[index];
  return {
    columns: levels.columns.subarray(index * SIZE, (index + 1) * SIZE),
    crates: levels.crates.subarray(index * SIZE, (index + 1) * SIZE),
    coin: levels.coin.subarray(index * 2, index * 2 + 2),
    agent: levels.themes[index * 3],
    ground: levels.themes[index * 3 + 1],
    background: levels.themes[index * 3 + 2],
    shift: levels.shift[index],
    rows: levels.monster_rows.subarray(first, first + count),
    themes: levels.monster_themes.subarray(first, first + count),
    count,
  };
}

// Where the monsters of each episode's frames begin.
function firstMonsters({ levels, opened }) {
  if (!opened.firstMonsters) {
    let end = 0;
    opened.firstMonsters = Array.from(opened.num_steps, (steps, episode) => {
      const start = end;
      end += (steps + 1) * levels.num_monsters[opened.level_index[episode]];
      return start;
    });
  }
  return opened.firstMonsters;
}

function frameOf(view, level, step) {
  const { opened, episode } = view;
  const at = opened.first[episode] + episode + step;
  const first = firstMonsters(view)[episode] + step * level.count;
  const monsters = Array.from(opened.frames.monsters.subarray(first, first + level.count), (told, index) => ({
    left: (told & 0x3fff) - 128,
    way: (told >> 14) - 1,
    row: level.rows[index],
    theme: level.themes[index],
  }));
  return { x: opened.frames.x[at], y: opened.frames.y[at], pose: opened.frames.pose[at], monsters };
}

// How far the centres of pixels lie to the right of the picture's middle; halves go to even numbers.
const offsets = (size) =>
  Int32Array.from({ length: size }, (_, at) => {
    const value = ((at + 0.5) / size - 0.5) * SPAN * 256;
    const down = Math.floor(value);
    return value - down === 0.5 ? down + (down & 1) : Math.round(value);
  });

// Half the height, in 128ths, of a disc that far from its centre, in 256ths.
const disc = (away, radius) => Math.floor(Math.sqrt(Math.max(radius ** 2 - away * away, 0) + 0.5)) >> 1;

// From -2**16 to 2**16: a wave of parabolas, 1024 to a turn.
function wave(turn) {
  const along = turn & 511;
  return (turn & 512 ? -1 : 1) * along * (512 - along);
}

const NOTHING = { low: 0, size: 0, ink: 0 }; // a shape that covers no pixel

// The shapes of a column of pixels: over its ground a first and a second one, each one stretch.
function shapesOf(level, frame, pixel, step) {
  const column = columnOf(level, Math.min(Math.max(pixel >> 8, 0), SIZE - 1));
  const u = pixel & 255;
  const away = Math.abs(u - 128);
  const { shift } = level;
  const hills = (10 * wave((9 * pixel + 7 * shift) >> 6) + 3 * wave((25 * pixel + 13 * shift) >> 6)) >> 9;
  const crest = 9 * 256 + hills;
  const found = { ...column, crestRow: crest >> 8, crestSize: (crest & 255) >> 1, seam: u < 38 ? 128 : 19, thing: null, monster: null };
  const centred = (size, ink) => ({ low: 64 - (size >> 1), size, ink });
  if (column.lava) {
    const height = 62 + ((wave(u << 2) * 13) >> 16);
    const shapes = [{ low: 0, size: height + 28, ink: GLOW }, { low: 0, size: height, ink: LAVA }];
    found.thing = { low: column.lava, rows: 1, shapes };
  } else if (column.saw) {
    const tooth = Math.abs(((u + 32 * (step & 1)) & 63) - 32);
    const shapes = [centred(2 * disc(away + (tooth >> 1), 126), SAW), centred(2 * disc(away, 51), HUB)];
    found.thing = { low: column.top, rows: 1, shapes };
  } else if (column.crates) {
    const shapes = [centred(away <= 102 ? 102 : 0, CRATES[column.wood]), NOTHING];
    found.thing = { low: column.top, rows: column.crates, shapes, frame: half(CRATES[column.wood]) };
  } else if (column.coin >= 0) {
    const shapes = [centred(2 * disc(away, 102), COIN), centred(2 * disc(away, 45), SHINE)];
    found.thing = { low: column.coin, rows: 1, shapes };
  }
  found.monster = monsterOf(frame, pixel);
  return found;
}

// Of several monsters in a column of pixels the one with the largest row, then theme, shows.
function monsterOf(frame, pixel) {
  let [shown, rank] = [null, -1];
  for (const monster of frame.monsters) {
    const within = pixel - monster.left;
    if (within < 0 || within >= 256) continue;
    const own = (monster.row << 16) | (monster.theme << 12) | ((monster.way + 1) << 8) | within;
    if (own > rank) [shown, rank] = [{ ...monster, within }, own];
  }
  if (!shown) return null;
  const body = Math.abs(shown.within - 128);
  const eye = 2 * disc(Math.abs(shown.within - 128 - 51 * shown.way), 44);
  return {
    row: shown.row,
    shapes: [
      { low: 0, size: (disc(body, 124) * 7) >> 2, ink: MONSTERS[shown.theme] },
      { low: 58 - (eye >> 1), size: eye, ink: WHITE },
    ],
  };
}

// What a column of pixels shows in the cells of row `row`: a ground, on it the edge of the hills up
// to `hill`, and over it a first and a second shape.
function cellOf(level, shapes, row, sky) {
  const isStone = shapes.stone > 0 && row === shapes.stone;
  const isRock = row < shapes.top || isStone;
  const isTurf = isStone || (shapes.top < SIZE && row === shapes.top - 1);
  const { thing, monster } = shapes;
  const isThing = thing !== null && row >= thing.low && row < thing.low + thing.rows;
  let [first, second, ground, hill] = [NOTHING, NOTHING, sky, 0];
  if (monster !== null && row === monster.row) [first, second] = monster.shapes;
  else if (isThing) [first, second] = thing.shapes;
  else if (isRock) {
    first = { low: 0, size: shapes.seam, ink: SEAMS[level.ground] };
    if (isTurf) second = { low: 77, size: 51, ink: TURFS[level.ground] };
  }
  if (isThing && thing.frame !== undefined) ground = thing.frame;
  else if (row >= 1 && row < shapes.lava) ground = LAVA;
  else if (isRock) ground = STONES[level.ground];
  else if (row < shapes.crestRow) ground = HILLS[level.background];
  else if (row === shapes.crestRow) hill = shapes.crestSize;
  return { first, second, ground, hill };
}

// The colour of the agent that far right of and above the picture's middle, in cells; null: none.
function agentAt(level, pose, right, above) {
  if (pose & CROSSED) {
    const [a, b] = [Math.abs(right), Math.abs(above)];
    if (Math.max(a, b) < 0.6 && Math.abs(a - b) < 0.14) return FATAL;
  }
  const body = AGENTS[level.agent];
  const side = pose & FACES_LEFT ? -1 : 1;
  const apart = pose & STRIDES ? 0.32 : 0.2;
  const [x, y] = [right, above + TALL];
  if (Math.abs(x - side * 0.23) < 0.09 && y >= 0.7 && y < 0.88) return PUPIL;
  if (Math.abs(x - side * 0.16) < 0.17 && y >= 0.64 && y < 0.94) return EYE;
  if (Math.abs(Math.abs(x) - apart) < 0.14 && y >= 0 && y < 0.2) return half(body);
  if (Math.abs(x) < 0.36 && y >= 0.16 && y < 0.73) return body;
  if (x ** 2 + (y - 0.73) ** 2 < 0.42 ** 2) return body;
  return null;
}

// Draws the window round the agent in the frame before action `step`, or the last one.
export function drawCoinRun(canvas, view, step) {
  const size = SPAN * SCALE;
  if (canvas.width !== size || canvas.height !== size) canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(size, size);
  const pixels = new Uint32Array(picture.data.buffer);
  const level = levelOf(view);
  const frame = frameOf(view, level, step);
  const along = offsets(size);
  const shapes = Array.from(along, (offset) => shapesOf(level, frame, frame.x + offset, step));
  const rows = rowsOf(frame.y, along);
  const hills = HILLS[level.background];
  for (const { row, first, ups } of rows) {
    const sky = packed(...SKIES[level.background].map((part) => part + 39 - Math.min(Math.max(row, 0), 39)));
    for (let j = 0; j < size; j += 1) {
      const cell = cellOf(level, shapes[j], row, sky);
      for (let i = 0; i < ups.length; i += 1) {
        const up = ups[i];
        let own = up < cell.hill ? hills : cell.ground;
        if (up >= cell.first.low && up < cell.first.low + cell.first.size) own = cell.first.ink;
        if (up >= cell.second.low && up < cell.second.low + cell.second.size) own = cell.second.ink;
        pixels[(first + i) * size + j] = own;
      }
    }
  }
  drawAgent(pixels, size, level, frame.pose);
  pen.putImageData(picture, 0, 0);
}

// The rows of cells that are seen, from above: the first row of pixels of each, and how high in the
// cell its pixels lie. Rows at and above the world's rim are rock, as those below it.
function rowsOf(y, along) {
  const found = [];
  along.forEach((offset, i) => {
    const own = (y - offset) >> 8;
    const row = own >= SIZE - 1 ? -SIZE : own;
    if (found.at(-1)?.own !== own) found.push({ own, row, first: i, ups: [] });
    found.at(-1).ups.push(((y - offset) & 255) >> 1);
  });
  return found;
}

function drawAgent(pixels, size, level, pose) {
  const reach = Math.ceil((0.75 * size) / SPAN);
  for (let i = size / 2 - reach; i < size / 2 + reach; i += 1) {
    for (let j = size / 2 - reach; j < size / 2 + reach; j += 1) {
      const [right, above] = [j, i].map((at) => ((at + 0.5 - size / 2) * SPAN) / size);
      const own = agentAt(level, pose, right, -above);
      if (own !== null) pixels[i * size + j] = own;
    }
  }
}

const MAP = 10; // pixels per cell of the map

// Draws the whole level, the agent's way through it, where there were alarms, and where it is now.
// `alarm` says of a step whether there is one.
export function drawMap(canvas, view, step, alarm) {
  const level = levelOf(view);
  const wide = level.coin[0] + 2;
  const columns = Array.from({ length: wide }, (_, x) => columnOf(level, x));
  const { opened, episode } = view;
  const start = opened.first[episode] + episode;
  const path = Array.from({ length: opened.num_steps[episode] + 1 }, (_, at) => ({
    x: opened.frames.x[start + at] / 256,
    y: opened.frames.y[start + at] / 256,
  }));
  const reached = Math.max(...path.map(({ y }) => y));
  const standing = columns.slice(1, -1).map((one) => Math.max(one.top + one.crates, one.stone, one.coin) + 2);
  const high = Math.min(SIZE, Math.ceil(Math.max(...standing, reached + 1)));
  canvas.width = wide * MAP;
  canvas.height = high * MAP;
  const pen = canvas.getContext("2d");
  const fill = (colour, x, y, width = 1, height = 1) => {
    pen.fillStyle = colour;
    pen.fillRect(x * MAP, (high - y - height) * MAP, width * MAP, height * MAP);
  };
  fill(INKS.skies[level.background], 0, 0, wide, high);
  columns.forEach((one, x) => {
    fill(INKS.stones[level.ground], x, 0, 1, Math.min(one.top, high));
    if (one.lava) fill(INKS.lava, x, 1, 1, one.lava);
    if (one.stone) fill(INKS.stones[level.ground], x, one.stone);
    if (one.crates) fill(INKS.crates[one.wood], x, one.top, 1, one.crates);
    if (one.saw) dot(pen, INKS.saw, x + 0.5, one.top + 0.5, 0.45, high);
    if (one.coin >= 0) dot(pen, INKS.coin, x + 0.5, one.coin + 0.5, 0.4, high);
  });
  for (const monster of frameOf(view, level, step).monsters) {
    dot(pen, INKS.monsters[monster.theme], (monster.left + 128) / 256, monster.row + 0.45, 0.45, high);
  }
  pen.strokeStyle = INKS.fatal;
  pen.lineWidth = 2;
  pen.beginPath();
  path.forEach(({ x, y }) => pen.lineTo(x * MAP, (high - y) * MAP));
  pen.stroke();
  path.slice(0, -1).forEach(({ x, y }, at) => {
    if (alarm(at)) dot(pen, page.palette.charts.orange, x, y, 0.22, high);
  });
  const now = path[step];
  dot(pen, INKS.agents[level.agent], now.x, now.y, 0.6, high);
  pen.strokeStyle = "#ffffff";
  pen.stroke();
}

function dot(pen, colour, x, y, radius, high) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x * MAP, (high - y) * MAP, radius * MAP, 0, 2 * Math.PI);
  pen.fill();
}

// The picture in words.
export function tellCoinRun(view, step) {
  const level = levelOf(view);
  const frame = frameOf(view, level, step);
  const ahead = [];
  for (let x = Math.floor(frame.x / 256); x < Math.min(frame.x / 256 + 7, SIZE); x += 1) {
    const one = columnOf(level, x);
    if (one.lava) ahead.push("lava");
    if (one.saw) ahead.push("a saw");
    if (one.coin >= 0) ahead.push("the coin");
  }
  for (const { left } of frame.monsters) {
    if (left > frame.x - 128 && left < frame.x + 7 * 256) ahead.push("a monster");
  }
  const seen = [...new Set(ahead)];
  const place = `The agent is ${(frame.x / 256).toFixed(1)} cells to the right and ${(frame.y / 256).toFixed(1)} up`;
  return `${place}; within seven cells to its right: ${seen.length ? seen.join(", ") : "no danger, no coin"}`;
}
