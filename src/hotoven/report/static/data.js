// The page's data: what Python wrote into it, and the arrays that are unpacked when they are needed.

export const page = JSON.parse(document.getElementById("data").textContent);

const KINDS = {
  u1: Uint8Array,
  i1: Int8Array,
  u2: Uint16Array,
  i2: Int16Array,
  u4: Uint32Array,
  i4: Int32Array,
  f4: Float32Array,
};
const unpacked = new Map();

// The bytes that lie packed in the element of that name.
export async function readBytes(name) {
  const text = atob(document.getElementById(name).textContent);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function read(told) {
  const planes = await readBytes(told.array);
  const Kind = KINDS[told.kind];
  const width = Kind.BYTES_PER_ELEMENT;
  const count = planes.length / width;
  const bytes = width === 1 ? planes : new Uint8Array(planes.length);
  if (width > 1) {
    for (let byte = 0; byte < width; byte += 1) {
      for (let item = 0; item < count; item += 1) bytes[item * width + byte] = planes[byte * count + item];
    }
  }
  const values = new Kind(bytes.buffer);
  if (told.delta) for (let item = 1; item < count; item += 1) values[item] += values[item - 1];
  return values;
}

// The array that Python put in, as a typed array.
export function unpack(told) {
  if (!unpacked.has(told.array)) unpacked.set(told.array, read(told));
  return unpacked.get(told.array);
}

// All arrays in plain data, unpacked in their places.
async function unpackAll(told) {
  if (told === null || typeof told !== "object" || Array.isArray(told)) return told;
  if ("array" in told) return unpack(told);
  const entries = Object.entries(told).map(async ([name, value]) => [name, await unpackAll(value)]);
  return Object.fromEntries(await Promise.all(entries));
}

// Where the parts of what lies one after another begin, and the end.
function starts(lengths) {
  const first = new Int32Array(lengths.length + 1);
  lengths.forEach((length, place) => (first[place + 1] = first[place] + length));
  return first;
}

// A policy with its arrays; `first` says where the steps of an episode begin.
export async function openPolicy(policy) {
  const opened = await unpackAll(policy);
  opened.first = starts(opened.num_steps);
  opened.placeOf = new Map([...opened.level_index].map((index, place) => [index, place]));
  return opened;
}

// The levels of a run with their arrays; null where they were not kept.
export async function openLevels(run) {
  if (!run.recorded?.levels) return null;
  const opened = await unpackAll(run.recorded.levels);
  if (opened.num_monsters) opened.firstMonster = starts(opened.num_monsters);
  return opened;
}
