// The map of KV blocks: drawing it, and saying what a place of it is.

import { CACHED, FREE, IN_FLIGHT, OWNED, number, plural } from "./numbers.js";

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A canvas as large as it is shown, in device pixels; its context draws in CSS pixels.
export function cleared(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const draw = canvas.getContext("2d");
  draw.setTransform(scale, 0, 0, scale, 0, 0);
  return { draw, width };
}

// Rows of square cells that fill the width: as large as is possible within some height.
function grid(count, width) {
  let size = 22;
  while (size > 3 && Math.ceil(count / Math.floor(width / size)) * size > 240) size--;
  const columns = Math.max(1, Math.floor(width / size));
  return { size, columns, rows: Math.ceil(count / columns) };
}

export class BlockMap {
  constructor(canvas, colours) {
    this.canvas = canvas;
    this.colours = colours;
    this.cells = new Uint8Array();
    this.at = null;
  }

  // `marked`: cells that get a frame.
  draw(cells, marked) {
    this.cells = cells;
    this.grid = grid(cells.length, this.canvas.clientWidth);
    const { size, columns, rows } = this.grid;
    const { draw } = cleared(this.canvas, Math.max(rows * size, 1));
    const gap = size > 5 ? 1 : 0;
    const shades = Object.fromEntries(this.colours.map((name) => [name, colour(name)]));
    for (let i = 0; i < cells.length; i++) {
      const [x, y] = [(i % columns) * size, Math.floor(i / columns) * size];
      draw.fillStyle = shades[this.name(cells[i])];
      draw.fillRect(x, y, size - gap, size - gap);
      if (cells[i] > OWNED && size >= 8) this.notch(draw, x, y, size - gap, cells[i] - OWNED + 1);
    }
    draw.strokeStyle = colour("chosen");
    draw.lineWidth = 2;
    for (const i of marked) this.frame(draw, i);
    if (this.at !== null && this.at < cells.length) {
      draw.setLineDash([2, 2]);
      this.frame(draw, this.at);
    }
  }

  frame(draw, i) {
    const { size, columns } = this.grid;
    draw.strokeRect((i % columns) * size + 1, Math.floor(i / columns) * size + 1, Math.max(size - 3, 1), Math.max(size - 3, 1));
  }

  // Shared blocks differ in more than colour: how many share them.
  notch(draw, x, y, size, sharers) {
    draw.fillStyle = colour("card");
    draw.font = `bold ${Math.min(size - 2, 12)}px system-ui, sans-serif`;
    draw.textAlign = "center";
    draw.textBaseline = "middle";
    draw.fillText(sharers > 9 ? "+" : String(sharers), x + size / 2, y + size / 2 + 0.5);
  }

  name(cell) {
    if (this.colours.length === 2) return this.colours[cell < OWNED ? 0 : 1];
    return this.colours[Math.min(cell, OWNED + 1)];
  }

  // The cell under a pointer.
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const { size, columns } = this.grid;
    const column = Math.floor((event.clientX - box.left) / size);
    const i = Math.floor((event.clientY - box.top) / size) * columns + column;
    return column >= 0 && column < columns && i >= 0 && i < this.cells.length ? i : null;
  }

  // The cell that a key leads to from the one that is looked at.
  led(key) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.grid.columns, ArrowDown: this.grid.columns };
    if (key === "Home") return 0;
    if (key === "End") return this.cells.length - 1;
    if (!(key in steps)) return undefined;
    const i = (this.at ?? -steps[key]) + steps[key];
    return i >= 0 && i < this.cells.length ? i : this.at;
  }
}

function holderName(table) {
  return table.request === 0 ? `prefix ${table.prefix}` : `request ${table.request}`;
}

// Which blocks a cell is, what they are, and who holds them.
export function cellText(snapshot, cell) {
  const per = snapshot.kv.blocks_per_cell;
  const [first, end] = [cell * per, Math.min((cell + 1) * per, snapshot.kv.blocks)];
  const where = per === 1 ? `Block ${first}` : `Blocks ${first} to ${end - 1}`;
  const value = snapshot.cells[cell];
  if (value === FREE) return `${where}: free`;
  if (value === CACHED) return `${where}: cached, held by nobody`;
  if (value === IN_FLIGHT) return `${where}: freed, but a step still reads it`;
  const counts = new Map();
  for (let block = first; block < end; block++) {
    for (const table of snapshot.holders.get(block) ?? []) counts.set(holderName(table), (counts.get(holderName(table)) ?? 0) + 1);
  }
  const names = [...counts].map(([name, count]) => (count > 1 ? `${name} (${count} times)` : name));
  const tables = value - OWNED + 1;
  const sharers = tables === 1 ? "one sequence" : `shared by ${value === 255 ? "253 or more" : tables} sequences`;
  const shown = names.length > 12 ? [...names.slice(0, 12), `and ${names.length - 12} more`] : names;
  return `${where}: ${sharers}: ${shown.join(", ") || "whose tables were left out"}`;
}

export function memoryText(snapshot) {
  const { stats, kv } = snapshot;
  const share = Math.round((100 * stats.blocks_used) / Math.max(kv.blocks, 1));
  const cell = kv.blocks_per_cell > 1 ? ` A cell is ${kv.blocks_per_cell} blocks.` : "";
  const swap = kv.swap_slots > 0 ? ` ${number(stats.blocks_swapped)} of ${plural(kv.swap_slots, "swap slot")} in use.` : "";
  return `${plural(kv.blocks, "block")} of ${kv.block_size} tokens: ${number(stats.blocks_used)} used (${share} %), ` +
    `${number(stats.blocks_shared)} of them shared, ${number(stats.blocks_cached)} cached, ` +
    `${number(stats.blocks_in_flight)} in flight, ${number(stats.blocks_free)} free.${cell}${swap}`;
}
