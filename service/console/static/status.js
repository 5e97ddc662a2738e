// Status: the model and what runs it, how busy it is, and what /readyz says.

import { address, byId, call, complain, count, el, readiness, report, SignedOut, svg } from "./api.js";
import { parse, total } from "./metrics.js";

const SECONDS = 3; // between two looks
const LOOKS = 100; // that the sparkline shows
const QUERY = { route: "/query" };

const history = []; // of {at, metrics}
const latencies = []; // ms of a query in each interval, null where nobody asked
let mayMeasure = true;
let declined = false; // to sign in: that is not asked every three seconds

// What /readyz says -----------------------------------------------------------------------------------------------

async function showReady() {
  const answer = await readiness().catch((error) => error);
  if (answer instanceof SignedOut) throw answer;
  if (answer instanceof Error) return sayReady("bad", "Not ready", answer.problem?.reasons ?? [answer.message]);
  const warned = answer.warnings.length > 0;
  sayReady(warned ? "warn" : "good", warned ? "Ready, with warnings" : "Ready", warned ? answer.warnings : ["/readyz answers 200: pictures are embedded and the gallery answers."]);
  return answer;
}

function sayReady(kind, word, sentences) {
  const place = byId("ready");
  const text = [word, ...sentences].join("\n");
  if (place.dataset.said === text) return; // nothing new to read out
  place.dataset.said = text;
  place.className = `verdict ${kind}`;
  place.replaceChildren(el("strong", {}, word), ...sentences.map((sentence) => el("p", {}, sentence)));
}

// Rates, queue and latency ------------------------------------------------------------------------------------------

async function measure() {
  if (!mayMeasure) return null;
  try {
    const look = { at: performance.now(), metrics: parse(await call("metrics", { as: "text" })) };
    history.push(look);
    if (history.length > LOOKS) history.shift();
    if (history.length > 1) latencies.push(latency(history.at(-2), look));
    if (latencies.length > LOOKS) latencies.shift();
    return look;
  } catch (error) {
    if (error.status !== 403) throw error;
    mayMeasure = false;
    byId("no-metrics").hidden = false;
    byId("no-metrics").textContent = "Rates, queue and latency come from /metrics, which needs a key of scope admin; sign in with one to see them.";
    return null;
  }
}

function grown(before, after, name, labels) {
  return total(after.metrics, name, labels) - total(before.metrics, name, labels);
}

function latency(before, after) {
  const asked = grown(before, after, "resight_request_seconds_count", QUERY);
  return asked > 0 ? (1000 * grown(before, after, "resight_request_seconds_sum", QUERY)) / asked : null;
}

// How fast something grew over the last half minute, per second.
function rate(name, labels) {
  const last = history.at(-1);
  const first = history.find((look) => last.at - look.at < 30_000);
  return first === last ? 0 : (1000 * grown(first, last, name, labels)) / (last.at - first.at);
}

function showTiles(ready, look) {
  const tiles = [];
  if (ready !== undefined) {
    tiles.push(tile("Crops", ready.crops.toLocaleString("en"), count(ready.identities, "identity", "identities")));
    tiles.push(tile("Provider", ready.provider.replace("ExecutionProvider", ""), `${ready.images_per_second} images/s at its start`));
  }
  if (look !== null) tiles.push(...measured(look.metrics));
  if (tiles.length > 0) byId("tiles").replaceChildren(...tiles);
}

function measured(metrics) {
  const limit = total(metrics, "resight_queue_limit_images");
  const free = metrics.resight_disk_free_bytes === undefined ? null : total(metrics, "resight_disk_free_bytes");
  return [
    tile("Requests", `${rate("resight_requests_total").toFixed(1)} /s`, `${count(total(metrics, "resight_requests_total"), "request")} since the start`),
    tile("Images", `${rate("resight_batch_images_sum").toFixed(1)} /s`, `${count(total(metrics, "resight_batch_images_sum"), "image")} embedded`),
    tile("Queue", total(metrics, "resight_queue_images").toLocaleString("en"), `images wait, of ${limit.toLocaleString("en")} at most`),
    tile("Problems", total(metrics, "resight_problems_total").toLocaleString("en"), "requests refused or failed"),
    free !== null && tile("Disk", `${(free / 2 ** 30).toFixed(1)} GiB`, "free for the gallery"),
  ].filter(Boolean);
}

function tile(name, value, note) {
  return el("li", { class: "card tile" }, el("p", { class: "label" }, name), el("p", { class: "big number" }, value), el("p", { class: "hint" }, note));
}

function showLatency(look) {
  byId("latency").hidden = look === null;
  if (look === null) return;
  const known = latencies.filter((ms) => ms !== null);
  byId("latency").replaceChildren(sparkline(known));
  const asked = total(look.metrics, "resight_request_seconds_count", QUERY);
  const mean = asked > 0 ? (1000 * total(look.metrics, "resight_request_seconds_sum", QUERY)) / asked : null;
  const parts = mean === null ? ["nobody has asked yet"] : [`${mean.toFixed(0)} ms on average, ${count(asked, "query", "queries")}`];
  if (known.length > 0) parts.unshift(`${known.at(-1).toFixed(0)} ms now`);
  byId("latency-now").textContent = parts.join(" · ");
}

function sparkline(known) {
  const most = Math.max(...latencies.map((ms) => ms ?? 0), 1);
  const label = known.length === 0 ? "No query since this page was opened" : `Between ${Math.min(...known).toFixed(0)} and ${Math.max(...known).toFixed(0)} ms since this page was opened`;
  const drawing = svg("svg", { class: "sparkline", viewBox: "0 0 500 60", preserveAspectRatio: "none", role: "img", "aria-label": label });
  drawing.append(svg("line", { class: "base", x1: 0, y1: 59, x2: 500, y2: 59 }));
  const start = LOOKS - latencies.length;
  latencies.forEach((ms, at) => {
    if (ms === null) return;
    const height = Math.max((54 * ms) / most, 2);
    drawing.append(svg("rect", { class: "value", x: 5 * (start + at), y: 59 - height, width: 4, height }));
  });
  return el("div", {}, drawing, el("p", { class: "hint" }, `${label}; a bar for every ${SECONDS} s in which somebody asked.`));
}

// The model ---------------------------------------------------------------------------------------------------------

async function showModel() {
  const model = await call("model");
  const file = { loaded: null, replaced: "The file on disk is another one by now; a restart takes that.", missing: "The file is gone; a restart would fail." }[model.file];
  const figures = Object.entries(model.metrics ?? {}).filter(([, value]) => typeof value === "number");
  const card = [
    el("p", { class: "notice" }, el("strong", {}, "Licence: "), model.licence_notice),
    file !== null && el("p", { class: "problem" }, file),
    figures.length > 0 && el("ul", { class: "plain row figures", "aria-label": "Measured" }, figures.map(([name, value]) => el("li", {}, el("span", { class: "faint" }, named(name)), " ", el("strong", { class: "number" }, (100 * value).toFixed(1))))),
    facts(model),
    el("p", { class: "row" }, el("a", { href: address("docs") }, "The API, described"), el("a", { href: address("openapi.json") }, "openapi.json")),
  ];
  byId("model").append(...card.filter(Boolean));
}

function named(metric) {
  return metric.replace(/^rank(\d+)$/, "rank-$1").replace("_official", " (official protocol)");
}

function facts(model) {
  const known = {
    Name: model.name,
    "SHA-256": el("code", {}, model.sha256),
    Architecture: model.architecture,
    "Input, output": `${model.width} × ${model.height} pixels, ${model.embedding_dim} numbers, ${model.precision}`,
    "Runs on": `${model.provider}, ${model.images_per_second} images/s`,
    "Match distance": model.match_distance_curve ? "from the file's curve, by the size of the gallery, unless a setting says another" : "only as RESIGHT_MATCH_DISTANCE sets it",
    "Trained on": model.training_data,
    "Measured by": model.protocol,
    Created: `${model.created}, source ${model.source_revision}`,
  };
  return el("dl", { class: "facts-list" }, Object.entries(known).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

// Looking again -----------------------------------------------------------------------------------------------------

async function look() {
  if (document.hidden || declined) return;
  try {
    const ready = await showReady();
    const seen = await measure();
    showTiles(ready, seen);
    showLatency(seen);
    complain(byId("problem"), "");
    byId("updated").textContent = `As of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    declined = error instanceof SignedOut;
    report(error, byId("problem"));
  }
}

async function keepLooking() {
  await look();
  setTimeout(keepLooking, 1000 * SECONDS);
}

document.addEventListener("visibilitychange", () => {
  declined = false;
  look();
});
keepLooking();
showModel().catch((error) => report(error, byId("problem")));
