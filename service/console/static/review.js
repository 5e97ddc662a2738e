// Review: crops without an identity, one after the other, beside those that they look like. A person decides.

import { byId, call, complain, el, identityLink, picture, report, Trouble, when } from "./api.js";
import { named } from "./crops.js";
import { give, Named, requireNobody, ruleOut, takeBack } from "./decisions.js";
import { verdictOf } from "./matches.js";
import { distanceBar } from "./parts.js";

const PAGE = 100;
const CANDIDATES = 5;
const MARGIN = 0.02; // as the service's verdict has it
const KEYS = { Enter: same, x: not, n: fresh, s: skip, u: undo };

let state = { queue: [], cursor: null, more: true, place: 0, decided: 0, skipped: [] };
let shown = null; // the crop on the desk; decisions are about this one
let candidates = [];
let last = null; // the last decision: the state before it, and what it changed
let working = false;

const kept = () => ({ ...state, queue: [...state.queue], skipped: [...state.skipped] });

// The queue --------------------------------------------------------------------------------------------------------

async function fetchMore() {
  const query = { unidentified: true, limit: PAGE, cursor: state.cursor };
  const page = await call("gallery", { query });
  state.queue.push(...page.crops);
  [state.cursor, state.more] = [page.next_cursor, page.next_cursor !== null];
}

async function next() {
  state.place += 1;
  await show();
}

/** Shows the crop whose turn it is; where that fails, what is wrong, and a way to try again. */
async function show() {
  shown = null;
  complain(byId("problem"), "");
  byId("retry-box").hidden = true;
  try {
    await showTurn();
  } catch (error) {
    byId("desk").hidden = byId("end").hidden = true;
    byId("retry-box").hidden = false;
    report(error, byId("problem"));
  }
}

async function showTurn() {
  if (state.place >= state.queue.length && state.more) await fetchMore();
  const crop = state.queue[state.place];
  if (!crop) return showEnd();
  const found = await candidatesOf(crop);
  if (found) return showCrop(crop, found);
  state.queue.splice(state.place, 1); // deleted meanwhile
  return showTurn();
}

/** What looks like a crop; null where it has been deleted meanwhile. */
async function candidatesOf(crop) {
  try {
    const json = { crop_ids: [crop.crop_id], top_k: CANDIDATES + 1, crops_per_identity: 4 };
    return without(crop, await call("query", { json }));
  } catch (error) {
    if (error.kind === "unknown-crop") return null;
    throw error;
  }
}

/** The answer as if the crop itself, at distance 0, were not in the gallery. */
function without(crop, found) {
  const matches = found.matches.filter((match) => match.crop_id !== crop.crop_id).slice(0, CANDIDATES);
  return { ...found, matches, searched: found.searched - 1, verdict: verdictAbout(matches, found.match_distance) };
}

function verdictAbout([first, second], below) {
  if (below === null || below === undefined) return null;
  if (!first || first.distance >= below) return "unknown";
  return second && second.distance - first.distance < MARGIN ? "ambiguous" : "match";
}

// What is shown ----------------------------------------------------------------------------------------------------

function showEnd() {
  byId("desk").hidden = true;
  byId("end").hidden = false;
  byId("position").textContent = progress();
  byId("end-title").textContent = state.queue.length ? "That was the last one" : "Nothing to review";
  byId("end-text").textContent = state.queue.length
    ? `${progress()}.`
    : "Every crop of the gallery has an identity. Crops that are enrolled without one come here.";
  byId("again").hidden = state.skipped.length === 0;
  byId("undo-end").hidden = last === null;
  if (state.queue.length) byId("end-title").focus();
}

function progress() {
  return `${state.decided.toLocaleString("en")} decided, ${state.skipped.length.toLocaleString("en")} skipped`;
}

function showCrop(crop, found) {
  byId("end").hidden = true;
  byId("desk").hidden = false;
  shown = crop;
  candidates = found.matches;
  const total = `${state.more ? "more than " : ""}${state.queue.length.toLocaleString("en")}`;
  byId("position").textContent = `Crop ${(state.place + 1).toLocaleString("en")} of ${total} · ${progress()}`;
  byId("own").replaceChildren(...ownFigure(crop));
  byId("verdict-place").replaceChildren(candidates.length ? verdictOf(found) : el("p", { class: "card" }, "Nobody is left to compare with. Give a new person a name, or skip."));
  byId("candidates").hidden = candidates.length === 0;
  byId("candidate-list").replaceChildren(...candidates.map((match, index) => candidate(match, index, found.match_distance)));
  byId("new-name").value = `person-${crop.crop_id.slice(0, 8)}`;
  byId("undo").disabled = last === null;
  complain(byId("decision-problem"), "");
  choose(0);
}

function ownFigure(crop) {
  const marks = crop.not_identity.length ? el("span", { class: "small faint" }, `not ${crop.not_identity.join(", ")}`) : null;
  const where = el("span", {}, crop.camera ?? "no camera");
  const caption = el("figcaption", {}, el("strong", {}, "This crop"), where, el("span", { class: "small" }, when(crop.captured_at)), marks);
  return [large(crop.crop_id, "The crop in question"), caption];
}

function large(cropId, alt) {
  const image = picture(cropId, alt);
  image.loading = "eager";
  image.classList.add("large");
  return image;
}

function candidate(match, index, below) {
  const radio = el("input", { type: "radio", name: "candidate", value: index, onchange: () => choose(index) });
  const name = el("strong", {}, `${index + 1}. ${match.identity ?? "nobody yet"}`);
  const facts = el("span", { class: "faint small" }, match.camera ?? "no camera", " · ", when(match.captured_at));
  const row = el("div", { class: "row spread" }, name, facts);
  return el("label", { class: "card candidate" }, radio, picture(match.crop_id), el("div", {}, row, distanceBar(match.distance, below ?? null)));
}

const chosen = () => candidates[Number(document.querySelector("[name=candidate]:checked")?.value ?? -1)];

function choose(index) {
  const radio = byId("candidate-list").querySelectorAll("[name=candidate]")[index];
  if (radio) radio.checked = true;
  byId("other").replaceChildren(...(radio ? otherFigure(candidates[index]) : []));
  byId("same").disabled = byId("not").disabled = !radio;
}

function otherFigure(match) {
  const name = match.identity === null ? el("strong", {}, "nobody yet") : identityLink(match.identity);
  const where = el("span", {}, match.camera ?? "no camera");
  const caption = el("figcaption", {}, name, where, el("span", { class: "small" }, when(match.captured_at)));
  const more = match.crops.filter((crop) => crop.crop_id !== match.crop_id).map((crop) => picture(crop.crop_id));
  return [large(match.crop_id, `Nearest crop of ${match.identity ?? "the candidate"}`), caption, el("div", { class: "more" }, more)];
}

// Decisions --------------------------------------------------------------------------------------------------------

/** Runs one decision at a time; what is wrong is said beside the buttons, and nothing moves on. */
async function deciding(work) {
  if (working) return;
  working = true;
  complain(byId("decision-problem"), "");
  try {
    await work(shown);
  } catch (error) {
    await failed(error);
  } finally {
    working = false;
  }
}

/** What the last decision did, where it is in nobody's way. */
const tell = (text) => (byId("said").textContent = text);

function failed(error) {
  if (error instanceof Named || error.kind === "unknown-crop") {
    tell(error.message);
    return error.cropId && error.cropId === shown?.crop_id ? next() : show(); // where a candidate is gone, the crop stays
  }
  return report(error, byId(byId("desk").hidden ? "problem" : "decision-problem"));
}

function same() {
  return deciding(async (crop) => {
    const match = chosen();
    if (!match) throw new Trouble("Choose a candidate first, or give a new person a name.");
    const changes = match.identity === null ? await nameBoth(crop, match) : await give([crop.crop_id], match.identity);
    await settled(changes, `The last crop is ${changes[0].after.identity} now.`);
  });
}

/** Two crops of somebody who has no name yet get the one in the field. */
async function nameBoth(crop, match) {
  const name = named(byId("new-name"), "A new person");
  await requireNobody(name);
  return give([crop.crop_id, match.crop_id], name);
}

function fresh() {
  return deciding(async (crop) => {
    const name = named(byId("new-name"), "A new person");
    await requireNobody(name);
    await settled(await give([crop.crop_id], name), `The last crop is ${name}, a new person.`);
  });
}

function not() {
  return deciding(async (crop) => {
    const match = chosen();
    if (!match) throw new Trouble("Choose a candidate first.");
    if (match.identity === null) throw new Trouble("This candidate has no name that could be ruled out; name it first, or skip.");
    const before = kept();
    const changes = await ruleOut(crop.crop_id, match.identity);
    last = { before, changes };
    state.queue[state.place] = changes[0].after;
    tell(`The crop is not ${match.identity}, and is not compared with that person any more.`);
    await show(); // the same crop, with who is left
  });
}

function skip() {
  return deciding(async (crop) => {
    last = { before: kept(), changes: [] };
    state.skipped.push(crop);
    tell("Skipped.");
    await next();
  });
}

async function settled(changes, text) {
  last = { before: kept(), changes };
  state.decided += 1;
  const others = new Set(changes.slice(1).map(({ after }) => after.crop_id));
  state.queue = state.queue.filter((other, index) => index <= state.place || !others.has(other.crop_id));
  tell(text);
  await next();
}

function undo() {
  return deciding(async () => {
    if (!last) throw new Trouble("There is nothing to undo.");
    await takeBack(last.changes);
    [state, last] = [last.before, null];
    tell("Taken back.");
    await show();
  });
}

/** The skipped ones make a new queue. */
function again() {
  return deciding(async () => {
    state = { ...state, queue: state.skipped, more: false, place: 0, skipped: [] };
    last = null;
    await show();
  });
}

// Keys -------------------------------------------------------------------------------------------------------------

function pressed(event) {
  if (byId("desk").hidden) return;
  if (!byId("keys").checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input:not([type=radio], [type=checkbox]), textarea, dialog")) return;
  if (event.key === "Enter" && event.target.closest("button, a, summary")) return; // they have their own Enter
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[1-5]$/.test(key)) chooseByKey(Number(key) - 1);
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
}

function chooseByKey(index) {
  if (index >= candidates.length) return;
  choose(index);
  document.querySelector("[name=candidate]:checked").focus();
}

for (const [id, work] of Object.entries({ same, not, skip, undo, again, "undo-end": undo, retry: show })) byId(id).addEventListener("click", work);
byId("new-form").addEventListener("submit", (event) => {
  event.preventDefault();
  fresh();
});
document.addEventListener("keydown", pressed);
show();
