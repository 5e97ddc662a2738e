// The gallery: every crop in a grid, filters, enrolment, and what is done to a selection.

import { busy, byId, call, complain, count, el, identityLink, instantOf, namesIn, report, requireName } from "./api.js";
import { say } from "./api.js";
import { agreed, named, suggestIdentities } from "./crops.js";
import { startEnrolment } from "./enrol.js";
import { Grid } from "./grid.js";

const PAGE = 500;
const AT_ONCE = 6; // corrections on their way
const ERASED_AT_ONCE = 1000;

const grid = new Grid(byId("grid"), { more, changed: showSelection, opened });
let question = {};
let cursor = null;
let lastCursor = null; // the cursor of the last page that came
let ended = false;
let loading = null; // aborts what is being fetched

// Reading ----------------------------------------------------------------------------------------------------------

function begin(filters) {
  loading?.abort();
  [question, cursor, lastCursor, ended, loading] = [filters, null, null, false, null];
  byId("shown").textContent = "";
  byId("empty").hidden = true;
  grid.clear();
  more();
}

async function more() {
  if (ended || loading) return;
  const own = (loading = new AbortController());
  try {
    const page = await call("gallery", { query: { ...question, limit: PAGE, cursor }, signal: own.signal });
    if (own === loading) took(page);
  } catch (error) {
    if (own === loading) failed(error);
  }
}

function took(page) {
  loading = null;
  const known = cursor === lastCursor ? new Set(grid.crops.map((crop) => crop.crop_id)) : new Set();
  [lastCursor, cursor] = [cursor, page.next_cursor];
  ended = cursor === null;
  complain(byId("filter-problem"), "");
  grid.append(page.crops.filter((crop) => !known.has(crop.crop_id)));
  showCount();
}

/** Asks for the last page again, to which enrolled crops were added; selection and place stay. */
function goOn() {
  if (!ended) return; // what is new comes with scrolling
  [cursor, ended] = [lastCursor, false];
  more();
}

function failed(error) {
  loading = null; // the next scrolling asks again
  report(error, byId("filter-problem"));
}

function showCount() {
  const number = grid.crops.length;
  byId("shown").textContent = ended ? count(number, "crop") : `${count(number, "crop")} loaded; scroll for more`;
  byId("empty").hidden = number > 0 || !ended;
  byId("empty").replaceChildren(...(number ? [] : nothing()));
}

function nothing() {
  if (Object.keys(question).length) return [el("p", {}, "No crop fits these filters. Change them, or show all.")];
  byId("enrol-box").open = true;
  return [el("p", {}, "The gallery is empty. Enrol pictures above: drop them here, or choose files.")];
}

async function showTotal() {
  const ready = await call("readyz").catch(() => null);
  if (ready?.crops === undefined) return; // what is wrong, the crops say
  const identities = count(ready.identities, "identity", "identities");
  byId("total").textContent = `${count(ready.crops, "crop")} in the gallery, ${identities}`;
}

// Filters ----------------------------------------------------------------------------------------------------------

function asked() {
  const form = byId("filters").elements;
  const identity = form.identity.value.trim();
  const filters = {
    camera: namesIn(form.camera, "A camera"),
    exclude_camera: namesIn(form.exclude_camera, "A camera"),
    identity: identity && requireName(identity, "An identity"),
    since: instantOf(form.since),
    until: instantOf(form.until),
    unidentified: form.unidentified.checked || null,
  };
  return Object.fromEntries(Object.entries(filters).filter(([, value]) => value?.length || value === true));
}

function filter(event) {
  event?.preventDefault();
  try {
    const filters = asked();
    complain(byId("filter-problem"), "");
    begin(filters);
    const fields = [...new FormData(byId("filters"))].filter(([, value]) => value);
    history.replaceState(null, "", `#${new URLSearchParams(fields)}`);
  } catch (error) {
    report(error, byId("filter-problem"));
  }
}

/** A link may bring filters: gallery#identity=0001&camera=c1. */
function fromAddress() {
  const form = byId("filters").elements;
  byId("filter-box").open = innerWidth > 640 || location.hash.length > 1;
  byId("filters").reset();
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name === "unidentified") form.unidentified.checked = true;
    else if (form.namedItem(name)) form.namedItem(name).value = value;
  }
  filter();
}

// The selection ----------------------------------------------------------------------------------------------------

function opened(crop) {
  if (crop.identity === null) say("This crop has no identity yet. Select it and name it, or go to Review.");
  else location.assign(identityLink(crop.identity).href);
}

function showSelection() {
  const number = grid.chosen.size;
  byId("selection").hidden = number === 0;
  byId("selected").textContent = `${count(number, "crop")} selected`;
  if (!number) complain(byId("selection-problem"), "");
}

/** Sends `patch` for every selected crop; those that failed stay selected. */
async function correct(button, patch, done) {
  const crops = grid.selection();
  const outcome = await busy(button, () => patchAll(crops, patch), byId("selection-problem"));
  if (!outcome) return;
  grid.replace(outcome.changed);
  grid.select(outcome.failed.map((crop) => crop.crop_id));
  showTotal();
  if (outcome.changed.size) say(`${count(outcome.changed.size, "crop")} ${done}.`, "done");
  if (!outcome.failed.length) return byId("grid").focus();
  const what = `${count(outcome.failed.length, "crop")} could not be changed; the selection keeps what failed.`;
  return complain(byId("selection-problem"), `${what} ${outcome.trouble.message}`);
}

async function patchAll(crops, json) {
  const outcome = { changed: new Map(), failed: [], trouble: null };
  const waiting = [...crops];
  const work = async () => {
    for (let crop = waiting.shift(); crop; crop = waiting.shift()) {
      await patchOne(crop, json, outcome);
      byId("selected").textContent = `${outcome.changed.size} of ${count(crops.length, "crop")} changed`;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return outcome;
}

async function patchOne(crop, json, outcome) {
  try {
    outcome.changed.set(crop.crop_id, await call(["gallery", crop.crop_id], { method: "PATCH", json }));
  } catch (error) {
    outcome.failed.push(crop);
    outcome.trouble = error;
  }
}

async function name(event) {
  event.preventDefault();
  complain(byId("selection-problem"), "");
  try {
    const identity = named(byId("new-identity"), "An identity");
    if (await mayMove(identity)) await correct(byId("set-identity"), { identity }, `now of identity ${identity}`);
  } catch (error) {
    report(error, byId("selection-problem"));
  }
}

/** Those of the selection that have another identity leave it: that is asked first. */
async function mayMove(identity) {
  const crops = grid.selection();
  const others = crops.filter((crop) => crop.identity !== null && crop.identity !== identity);
  if (!others.length) return true;
  const title = `Move ${count(others.length, "crop")} to ${identity}?`;
  const names = [...new Set(others.map((crop) => crop.identity))];
  const from = names.length > 3 ? count(names.length, "identity", "identities") : names.join(", ");
  const rest = crops.length - others.length;
  return confirmed(title, `They leave ${from}.${rest ? ` The other ${rest} of the selection come along.` : ""}`, "Move");
}

function confirmed(title, text, yes) {
  byId("sure-title").textContent = title;
  byId("sure-text").textContent = text;
  byId("sure-yes").textContent = yes;
  return agreed(byId("sure"));
}

async function takeAway() {
  const named = grid.selection().filter((crop) => crop.identity !== null).length;
  const text = `${count(named, "selected crop")} with an identity will be unidentified. The pictures stay.`;
  if (await confirmed("Take the identity away?", text, "Take away")) {
    await correct(byId("clear-identity"), { identity: null }, "without an identity now");
  }
}

function setCamera(event) {
  event.preventDefault();
  complain(byId("selection-problem"), "");
  try {
    const camera = named(byId("new-camera"), "A camera");
    correct(byId("set-camera"), { camera }, `now of camera ${camera}`);
  } catch (error) {
    report(error, byId("selection-problem"));
  }
}

async function erase() {
  const ids = grid.selection().map((crop) => crop.crop_id);
  const text = "Pictures, labels and embeddings are overwritten. This cannot be undone.";
  const title = `Delete ${count(ids.length, "crop")}?`;
  if (!(await confirmed(title, text, `Delete ${count(ids.length, "crop")}`))) return;
  await busy(byId("delete"), () => eraseAll(ids), byId("selection-problem"));
}

async function eraseAll(ids) {
  let erased = 0;
  for (let first = 0; first < ids.length; first += ERASED_AT_ONCE) {
    const crop_ids = ids.slice(first, first + ERASED_AT_ONCE);
    erased += (await call("erasures", { json: { crop_ids } })).crops;
    grid.remove(new Set(crop_ids));
    showCount();
  }
  say(`${count(erased, "crop")} deleted.`, "done");
  showTotal();
  byId("grid").focus();
}

// Beginning --------------------------------------------------------------------------------------------------------

startEnrolment(() => {
  showTotal();
  goOn();
});
byId("filters").addEventListener("submit", filter);
byId("filters").addEventListener("reset", () => setTimeout(filter));
byId("unidentified").addEventListener("change", filter);
byId("unselect").addEventListener("click", () => grid.select([]));
byId("name-form").addEventListener("submit", name);
byId("camera-form").addEventListener("submit", setCamera);
byId("clear-identity").addEventListener("click", takeAway);
byId("delete").addEventListener("click", erase);
suggestIdentities(byId("who"), byId("names"));
suggestIdentities(byId("new-identity"), byId("names"));
window.addEventListener("hashchange", fromAddress);
showTotal();
fromAddress();
