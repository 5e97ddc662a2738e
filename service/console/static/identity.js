// One identity: its crops on a time line, renaming, merging with a preview, erasing with a receipt. Without a name in
// the address (identity#0001): all identities.

import { busy, byId, call, complain, count, el, identityLink, picture, report, requireName, say, Trouble, when } from "./api.js";
import { agreed, cropsOf, knownIdentity, named, suggestIdentities } from "./crops.js";
import { drawTimeline } from "./timeline.js";

const PAGE = 60;
const MOST_CROPS = 5000;
const MOST_IN_STRIP = 60;
const SECTIONS = ["list", "one", "receipt"];

let shown = null; // the identity of the page, with its crops
let span = null; // the time that the line is narrowed to
let cursor = null;

function show(section) {
  for (const id of SECTIONS) byId(id).hidden = id !== section;
  complain(byId("problem"), "");
}

async function open() {
  const name = decoded(location.hash.slice(1));
  shown = span = null;
  document.title = name ? `${name} · Resight` : "Identities · Resight";
  byId("title").textContent = name || "Identities";
  try {
    await (name ? openOne(name) : openList());
  } catch (error) {
    show(null);
    report(error, byId("problem"));
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// All identities ---------------------------------------------------------------------------------------------------

async function openList() {
  show("list");
  const page = await call("identities", { query: { limit: PAGE } });
  byId("faces").replaceChildren();
  append(page);
}

async function showMore() {
  append(await call("identities", { query: { limit: PAGE, cursor } }));
}

function append(page) {
  byId("faces").append(...page.identities.map(face));
  cursor = page.next_cursor;
  byId("more").hidden = cursor === null;
  const number = byId("faces").children.length;
  byId("list-count").textContent = number ? listed(number) : "Nobody has a name yet. Enrol pictures in the gallery, or name crops in Review.";
}

function listed(number) {
  const text = count(number, "identity", "identities");
  return cursor === null ? `${text}, by name` : `the first ${text}, by name`;
}

function face(identity) {
  const facts = `${count(identity.crops, "crop")}, ${count(identity.cameras.length, "camera")}`;
  return el("li", { class: "card face" }, picture(identity.crop_id), el("div", {}, identityLink(identity.identity), el("p", { class: "faint small" }, facts)));
}

// One identity -----------------------------------------------------------------------------------------------------

async function openOne(name) {
  const identity = await knownIdentity(requireName(name, "An identity"));
  if (!identity) throw new Trouble(`No crop has the identity ${name}. Check the name, or choose one of all identities.`);
  const { crops, more } = await cropsOf(name, MOST_CROPS);
  if (decoded(location.hash.slice(1)) !== name) return; // another one was opened meanwhile
  shown = { ...identity, crops_shown: crops, more };
  show("one");
  for (const id of ["new-name", "typed"]) byId(id).value = "";
  for (const id of ["rename-problem", "erase-problem"]) complain(byId(id), "");
  byId("facts").replaceChildren(...facts(shown));
  byId("in-gallery").href = `gallery#${new URLSearchParams({ identity: name })}`;
  byId("erase-text").textContent = `${count(identity.crops, "crop")}, with pictures, labels and embeddings, will be overwritten. This cannot be undone.`;
  narrow(null);
}

function facts(identity) {
  const said = [`${count(identity.crops, "crop")}`, cameras(identity)];
  if (identity.first_captured_at) said.push(times(identity));
  if (identity.more) said.push(`the first ${MOST_CROPS.toLocaleString("en")} are drawn`);
  return said.map((one) => el("span", {}, one));
}

function cameras({ cameras: names }) {
  if (!names.length) return "no camera";
  const some = names.slice(0, 8).join(", ");
  return `${count(names.length, "camera")}: ${some}${names.length > 8 ? ", …" : ""}`;
}

function times(identity) {
  return el("span", {}, when(identity.first_captured_at), " to ", when(identity.last_captured_at));
}

/** Draws the crops of a span of time, {first, last}, or all for null. */
function narrow(to) {
  span = to;
  byId("whole").hidden = span === null;
  byId("chosen").hidden = true;
  draw();
}

function draw() {
  if (!shown) return;
  drawTimeline(byId("line"), shown.crops_shown.filter(within), choose);
}

function within(crop) {
  if (span === null) return true;
  const time = crop.captured_at === null ? NaN : Date.parse(crop.captured_at);
  return time >= span.first && time <= span.last;
}

function choose(group) {
  const { crops, timed } = group;
  const strip = el("ul", { class: "plain strip" }, crops.slice(0, MOST_IN_STRIP).map(stripItem));
  const left = crops.length - MOST_IN_STRIP;
  byId("chosen").replaceChildren(
    el("div", { class: "row" }, el("h3", {}, count(crops.length, "crop")), timed && crops.length > 1 && zoom(crops)),
    strip,
  );
  if (left > 0) byId("chosen").append(el("p", { class: "hint" }, `and ${count(left, "crop")} more: see the gallery.`));
  byId("chosen").hidden = false;
}

function stripItem(crop) {
  const camera = el("div", {}, crop.camera ?? "no camera");
  return el("li", {}, picture(crop.crop_id, `Crop of ${shown.identity}`), camera, when(crop.captured_at));
}

function zoom(crops) {
  const times = crops.map((crop) => Date.parse(crop.captured_at));
  const to = { first: times[0], last: times.at(-1) };
  if (to.first === to.last) return null; // nothing to pull apart
  return el("button", { type: "button", class: "small", onclick: () => narrow(to) }, "Zoom into their time");
}

// Renaming and merging ---------------------------------------------------------------------------------------------

async function rename(event) {
  event.preventDefault();
  await busy(byId("rename-button"), renamed, byId("rename-problem"));
}

async function renamed() {
  const from = shown.identity;
  const to = named(byId("new-name"), "An identity");
  if (to === from) throw new Trouble(`${to} is its name already; type another one.`);
  const other = await knownIdentity(to);
  if (other && !(await previewed(other))) return;
  const answer = await call(["identities", from], { method: "PATCH", json: { identity: to } });
  const what = answer.merged ? "Merged" : "Renamed";
  say(`${what}: ${from} is ${answer.identity} now, ${count(answer.moved, "crop")} moved.`, "done");
  location.hash = encodeURIComponent(answer.identity);
}

/** Shows both, and what they would be together; true where the visitor wants it. */
function previewed(other) {
  byId("merge-title").textContent = `Merge ${shown.identity} into ${other.identity}?`;
  byId("merge-sides").replaceChildren(side(shown), side(other));
  const both = new Set([...shown.cameras, ...other.cameras]);
  const crops = count(shown.crops + other.crops, "crop");
  byId("merge-total").textContent = `Together ${other.identity} will have ${crops} of ${count(both.size, "camera")}.`;
  return agreed(byId("merge"));
}

function side(identity) {
  const face = picture(identity.crop_id, `First crop of ${identity.identity}`);
  const lines = [count(identity.crops, "crop"), cameras(identity)].map((text) => el("p", { class: "small" }, text));
  const seen = identity.first_captured_at ? el("p", { class: "small" }, times(identity)) : null;
  return el("div", { class: "stack" }, face, el("p", { class: "identity" }, identity.identity), lines, seen);
}

// Erasing ----------------------------------------------------------------------------------------------------------

async function erase(event) {
  event.preventDefault();
  await busy(byId("erase-button"), erased, byId("erase-problem"));
}

async function erased() {
  const name = shown.identity;
  if (byId("typed").value.trim() !== name) throw new Trouble(`Type ${name}, the name as it stands above, to erase it.`);
  const receipt = await call("erasures", { json: { identity: name } });
  shown = null;
  showReceipt(receipt);
}

function showReceipt(receipt) {
  show("receipt");
  byId("receipt-text").textContent = `${count(receipt.crops, "crop")} of ${receipt.asked.identity} and all marks against that name are erased.`;
  const log = receipt.wal_truncated ? "rid of them" : "still read by something; the bytes in it go when that lets go";
  const rows = { Receipt: receipt.id, "Erased at": when(receipt.erased_at), Crops: receipt.crops, "Database log": log };
  byId("receipt-facts").replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
  const file = new Blob([JSON.stringify(receipt, null, 2), "\n"], { type: "application/json" });
  byId("download").href = URL.createObjectURL(file);
  byId("download").download = `erasure-${receipt.id}.json`;
  byId("receipt-title").focus();
}

// Beginning --------------------------------------------------------------------------------------------------------

function jump(event) {
  event.preventDefault();
  try {
    location.hash = encodeURIComponent(named(byId("open-name"), "An identity"));
    complain(byId("problem"), "");
  } catch (error) {
    report(error, byId("problem"));
  }
}

byId("open-form").addEventListener("submit", jump);
byId("rename").addEventListener("submit", rename);
byId("erase").addEventListener("submit", erase);
byId("whole").addEventListener("click", () => narrow(null));
byId("more").addEventListener("click", () => busy(byId("more"), showMore, byId("problem")));
suggestIdentities(byId("open-name"), byId("names"));
suggestIdentities(byId("new-name"), byId("names"));
window.addEventListener("hashchange", open);
let width = 0;
new ResizeObserver(([{ contentRect }]) => {
  if (contentRect.width === width) return;
  width = contentRect.width;
  draw();
}).observe(byId("line"));
open();
