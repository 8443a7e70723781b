// The page: asks for a snapshot each second while somebody looks, and shows it. What it shows are numbers.

import { BlockMap, cellText, cleared, colour, memoryText } from "./memory.js";
import { NO_BLOCK, number, percentile, plural, rate, seconds, tablesOf, unpacked } from "./numbers.js";

const EVERY = 1000; // milliseconds
const KEPT = 30; // snapshots that rates and percentiles look back on
const byId = (id) => document.getElementById(id);
const map = new BlockMap(byId("map"), ["free", "cached", "flight", "owned", "shared"]);
const swapMap = new BlockMap(byId("swap-map"), ["free", "swapped"]);
const past = [];
let now = null;
let chosen = 0; // the request whose block table is shown; 0: none
let model = ""; // that is shown; "": the first
let key = sessionStorage.getItem("key") ?? "";
let timer = 0;
let asking = false;

function made(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Asking

async function ask() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  try {
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    const answer = await fetch(`snapshot?${new URLSearchParams({ request: chosen, model })}`, { headers, cache: "no-store", signal: AbortSignal.timeout(30000) });
    if (answer.status === 401) return askForKey();
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    const snapshot = unpacked(await answer.json());
    if (model && snapshot.model !== model) return void (timer = setTimeout(ask, 0)); // another was chosen meanwhile
    take(snapshot);
    say("");
  } catch (error) {
    say(error.name === "TypeError" ? "the server cannot be reached" : error.message);
  } finally {
    asking = false;
  }
  timer = setTimeout(ask, EVERY);
}

function say(trouble) {
  const status = byId("status");
  status.classList.toggle("bad", trouble !== "");
  const text = trouble || `${now.ready ? "ready" : "ends"}, up ${seconds(now.uptime)}, version ${now.version}`;
  if (status.textContent !== text) status.textContent = text;
}

function askForKey() {
  byId("refused").textContent = key ? "That key is wrong." : "";
  byId("status").textContent = "needs a key";
  byId("all").hidden = true;
  byId("ask").hidden = false;
  byId("key").focus();
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value;
  sessionStorage.setItem("key", key);
  ask();
});

document.addEventListener("visibilitychange", ask);
addEventListener("resize", () => now && show());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => now && show());

function take(snapshot) {
  if (now) past.push(now);
  if (now && now.model !== snapshot.model) past.length = 0;
  if (past.length > KEPT || (past.length && past[0].time > snapshot.time)) past.shift();
  now = snapshot;
  byId("ask").hidden = true;
  byId("all").hidden = false;
  show();
}

// Showing

function show() {
  byId("model").textContent = now.models.length > 1 ? "" : now.model;
  showModels();
  showTiles();
  showMemory();
  showSteps();
  showRequests();
  showTable();
}

function showModels() {
  byId("choice").hidden = now.models.length < 2;
  const select = byId("models");
  if (select.options.length !== now.models.length) select.replaceChildren(...now.models.map((name) => new Option(name)));
  select.value = now.model;
}

byId("models").addEventListener("change", () => {
  model = byId("models").value;
  past.length = chosen = 0;
  now = null;
  ask();
});

function atMost(value) {
  return value === null || value === Infinity ? seconds(value) : `≤ ${seconds(value)}`;
}

function showTiles() {
  const then = past[Math.max(0, past.length - 5)] ?? null;
  const first = past[0] ?? null;
  const pair = (name) => [0.5, 0.95].map((share) => atMost(percentile(now, first, name, share))).join(" / ");
  const { stats } = now;
  const hits = stats.prefix_query_tokens ? (100 * stats.prefix_hit_tokens) / stats.prefix_query_tokens : 0;
  const tiles = [
    ["Output tokens", number(rate(now, then, "tokens_sampled")), "a second"],
    ["Computed tokens", number(rate(now, then, "tokens_computed")), "a second"],
    ["Running", number(stats.requests_running), ""],
    ["Waiting", number(stats.requests_waiting), stats.requests_swapped ? `${number(stats.requests_swapped)} swapped` : ""],
    ["First token, p50 / p95", pair("time_to_first_token_seconds"), ""],
    ["Between tokens, p50 / p95", pair("inter_token_latency_seconds"), ""],
    ["In the queue, p50 / p95", pair("request_queue_time_seconds"), ""],
    ["Prompt tokens from the cache", `${hits.toFixed(0)} %`, ""],
  ];
  byId("tiles").replaceChildren(
    ...tiles.map(([name, value, unit]) => {
      const tile = made("div");
      const said = made("dd", value);
      if (unit) said.append(" ", made("small", unit));
      tile.append(made("dt", name), said);
      return tile;
    }),
  );
}

function chosenCells() {
  const cells = new Set();
  if (!chosen) return cells;
  for (const table of tablesOf(now, chosen)) {
    for (const block of table.blocks) if (block !== NO_BLOCK) cells.add(Math.floor(block / now.kv.blocks_per_cell));
  }
  return cells;
}

function showMemory() {
  byId("memory-text").textContent = memoryText(now);
  map.draw(now.cells, chosenCells());
  byId("swap").hidden = now.kv.swap_slots === 0;
  if (now.kv.swap_slots > 0) swapMap.draw(now.swapCells, []);
  const { stats } = now;
  const counts = [
    ["free", stats.blocks_free],
    ["cached", stats.blocks_cached],
    ["flight", stats.blocks_in_flight, "in flight"],
    ["owned", stats.blocks_used - stats.blocks_shared],
    ["shared", stats.blocks_shared],
    ["swapped", stats.blocks_swapped],
  ];
  byId("legend").replaceChildren(
    ...counts.map(([name, count, label]) => {
      const entry = made("li");
      entry.append(made("span", "", `swatch ${name}`), `${label ?? name} ${number(count)}`);
      return entry;
    }),
  );
  if (map.at !== null) sayCell();
}

function sayCell() {
  const text = map.at !== null && map.at < now.cells.length ? cellText(now, map.at) : "";
  if (text && byId("detail").textContent !== text) byId("detail").textContent = text;
}

function lookAt(cell) {
  if (cell === map.at || !now) return;
  map.at = cell;
  map.draw(now.cells, chosenCells());
  sayCell();
}

map.canvas.addEventListener("pointermove", (event) => lookAt(map.under(event)));
map.canvas.addEventListener("pointerleave", () => lookAt(null));
map.canvas.addEventListener("keydown", (event) => {
  const cell = now ? map.led(event.key) : undefined;
  if (cell === undefined) return;
  event.preventDefault();
  lookAt(cell);
});
map.canvas.addEventListener("click", () => {
  const holder = map.at === null ? null : now.holders.get(map.at * now.kv.blocks_per_cell)?.[0];
  if (holder?.request) choose(holder.request);
});

function showSteps() {
  const { steps } = now;
  const { draw, width } = cleared(byId("timeline"), 90);
  const longest = steps.reduce((most, step) => Math.max(most, step.seconds), 0);
  const last = steps[steps.length - 1];
  const tokens = steps.reduce((sum, step) => sum + step.prefill_tokens + step.decode_tokens, 0);
  const span = steps.length ? last.start + last.seconds - steps[0].start : 0;
  byId("steps-text").textContent = steps.length
    ? `The latest ${plural(steps.length, "step")} computed ${plural(tokens, "token")} within ${seconds(span)}; the longest took ${seconds(longest)}, ` +
      `the last one ${seconds(last.seconds)} for ${plural(last.prefill_tokens + last.decode_tokens, "token")} of ${plural(last.sequences, "sequence")}.`
    : "No step has run.";
  const bar = width / 240;
  steps.forEach((step, i) => {
    const x = i * bar;
    const height = Math.max(1, (80 * step.seconds) / (longest || 1));
    const prompt = (height * step.prefill_tokens) / Math.max(1, step.prefill_tokens + step.decode_tokens);
    draw.fillStyle = colour("owned");
    draw.fillRect(x, 90 - height, Math.max(bar - 0.5, 0.5), height - prompt);
    draw.fillStyle = colour("cached");
    draw.fillRect(x, 90 - prompt, Math.max(bar - 0.5, 0.5), prompt);
    draw.fillStyle = colour("shared");
    if (step.preempted + step.swaps > 0) draw.fillRect(x, 0, Math.max(bar - 0.5, 2), 6);
  });
}

function blocksOf(id) {
  const blocks = new Set();
  for (const table of tablesOf(now, id)) for (const block of table.blocks) if (block !== NO_BLOCK) blocks.add(block);
  const shared = [...blocks].filter((block) => now.holders.get(block).length > 1).length;
  return { count: blocks.size, shared };
}

function showRequests() {
  const focused = document.activeElement?.dataset?.request;
  const order = ["running", "swapped", "waiting"];
  const sorted = [...now.requests].sort((a, b) => order.indexOf(a.place) - order.indexOf(b.place) || a.id - b.id);
  const rows = sorted.map((request) => {
    const row = made("tr", undefined, request.id === chosen ? "chosen" : "");
    const name = made("td");
    const button = made("button", String(request.id));
    button.type = "button";
    button.dataset.request = request.id;
    button.setAttribute("aria-label", `Block table of request ${request.id}`);
    name.append(button);
    const { count, shared } = blocksOf(request.id);
    const cells = [
      request.place, number(request.prompt_tokens), number(request.cached_tokens), `${number(request.output_tokens)} of ${number(request.max_tokens)}`,
      number(request.num_samples), number(count), number(shared), seconds(Math.max(0, now.time - request.arrival)),
    ];
    row.append(name, ...cells.map((text) => made("td", text)));
    return row;
  });
  byId("rows").replaceChildren(...rows);
  if (focused) document.querySelector(`button[data-request="${Number(focused)}"]`)?.focus();
  const out = now.requests_left_out;
  byId("left-out").textContent = now.requests.length === 0 ? "No requests." : out ? `And ${plural(out, "request")} more.` : "";
}

byId("rows").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row) choose(Number(row.querySelector("button").dataset.request));
});
byId("close").addEventListener("click", () => choose(0));

function choose(id) {
  chosen = id;
  show();
  if (id) byId("table").scrollIntoView({ block: "nearest" });
  ask();
}

function showTable() {
  byId("table").hidden = chosen === 0;
  if (chosen === 0) return;
  const tables = tablesOf(now, chosen);
  byId("table-title").textContent = `Block table of request ${chosen}`;
  byId("tables").replaceChildren(
    ...tables.map((table) => {
      const part = made("div");
      const groups = now.kv.layer_groups;
      part.append(made("h3", `Sample ${table.sample}: ${plural(table.num_tokens, "token")}${table.swapped ? ", swapped out" : ""}`));
      const list = made("ol", undefined, "blocks");
      table.blocks.forEach((block, i) => list.append(entry(table, block, i, groups)));
      part.append(list);
      return part;
    }),
  );
  if (tables.length === 0) byId("tables").textContent = "It has no blocks: it has ended, or waits to begin.";
}

function entry(table, block, i, groups) {
  const slot = table.slots?.[i] ?? NO_BLOCK;
  const sharers = block === NO_BLOCK ? 0 : now.holders.get(block).length;
  const className = slot !== NO_BLOCK ? "swapped" : sharers > 1 ? "shared" : "";
  const item = made("li", undefined, className);
  const where = slot !== NO_BLOCK ? `slot ${slot}` : block === NO_BLOCK ? "–" : String(block);
  const logical = groups > 1 ? `${Math.floor(i / groups)}.${i % groups}` : String(i);
  item.append(made("small", `${logical} → `), where);
  if (sharers > 1) item.append(made("small", ` × ${sharers}`));
  return item;
}

ask();
