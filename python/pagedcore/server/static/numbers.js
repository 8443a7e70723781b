// A snapshot taken apart, and numbers made of two of them. Nothing here touches the page.

export const NO_BLOCK = 0xffffffff;
export const [FREE, CACHED, IN_FLIGHT, OWNED] = [0, 1, 2, 3];

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// What the server sends, with its maps as arrays, and for each block the tables that list it.
export function unpacked(answer) {
  const raw = bytes(answer.entries);
  const view = new DataView(raw.buffer);
  const entries = Uint32Array.from({ length: raw.length / 4 }, (_, i) => view.getUint32(4 * i, true));
  const tables = answer.tables.map((table) => {
    const end = table.first_entry + table.num_entries;
    const slots = table.swapped ? entries.subarray(end, end + table.num_entries) : null;
    return { ...table, blocks: entries.subarray(table.first_entry, end), slots };
  });
  const holders = new Map();
  for (const table of tables) {
    for (const block of new Set(table.blocks)) {
      if (block === NO_BLOCK) continue;
      if (!holders.has(block)) holders.set(block, []);
      holders.get(block).push(table);
    }
  }
  return { ...answer, tables, holders, cells: bytes(answer.kv.cells), swapCells: bytes(answer.kv.swap_cells) };
}

// Tables by their request.
export function tablesOf(snapshot, id) {
  return snapshot.tables.filter((table) => table.request === id);
}

// How many a second of a counter, between two snapshots.
export function rate(now, before, name) {
  if (!before || now.time <= before.time) return 0;
  return Math.max(0, (now.stats[name] - before.stats[name]) / (now.time - before.time));
}

// A share of the values that a histogram has taken since an earlier snapshot lies at or below this bound; null: none came.
export function percentile(now, before, name, share) {
  const { bounds, counts } = now.latency[name];
  const earlier = before ? before.latency[name].counts : [];
  const fresh = counts.map((count, i) => count - (earlier[i] ?? 0));
  const all = fresh.reduce((sum, count) => sum + count, 0);
  if (all <= 0) return null;
  let below = 0;
  for (let i = 0; i < fresh.length; i++) {
    below += fresh[i];
    if (below >= share * all) return i < bounds.length ? bounds[i] : Infinity;
  }
  return Infinity;
}

export function seconds(value) {
  if (value === null) return "–";
  if (value === Infinity) return "> 500 s";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${+(value * 1000).toPrecision(3)} ms`;
  if (value < 120) return `${+value.toPrecision(3)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

export function number(value) {
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

export function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}
