// Search: who in the gallery is this person?

import { busy, byId, call, complain, count, el, entrance, instantOf, namesIn, report, say, SignedOut, Trouble } from "./api.js";
import { heatmap } from "./attention.js";
import { firstSteps } from "./firststeps.js";
import { curlOf } from "./curl.js";
import { matchCard, verdictOf } from "./matches.js";
import { fileProbe, cropProbe, MAX_PICTURES, probeItem, refusal } from "./probe.js";

let probe = []; // of fileProbe or of cropProbe, never both: the API takes pictures or crops
let running = null; // an AbortController of the query under way
let answer = null;

const ATTENTION = byId("attention");

// The probe ---------------------------------------------------------------------------------------------------------

function addFiles(files) {
  const kept = probe.filter((one) => one.file);
  const sound = [...files].filter((file) => refusal(file) === null);
  const wrong = [...files].map(refusal).filter((why) => why !== null);
  const room = MAX_PICTURES - kept.length;
  if (sound.length > room) {
    wrong.push(`A query takes at most ${MAX_PICTURES} pictures; ${count(sound.length - room, "picture was", "pictures were")} left out.`);
  }
  const added = sound.slice(0, room);
  if (added.length > 0) {
    probe.filter((one) => !one.file).forEach((one) => one.forget());
    setProbe([...kept, ...added.map(fileProbe)]);
    clearFragment();
    search();
  }
  if (wrong.length > 0) complain(byId("problem"), wrong.join(" "));
}

function setProbe(next) {
  probe = next;
  byId("probe").replaceChildren(...probe.map((one) => probeItem(one, () => remove(one))));
  byId("probe").hidden = probe.length === 0;
  byId("probe").classList.toggle("many", probe.length > 4);
  offerOwnCamera();
}

function remove(one) {
  one.forget();
  setProbe(probe.filter((other) => other !== one));
  clearFragment();
  byId("files").focus();
  if (probe.length > 0) search();
  else showNothing();
}

function offerOwnCamera() {
  const cameras = [...new Set(probe.map((one) => one.camera).filter(Boolean))];
  byId("not-own").hidden = cameras.length === 0;
  byId("not-own").textContent = `Not its own: ${cameras.join(", ")}`;
  byId("not-own").onclick = () => {
    byId("not-cameras").value = cameras.join(", ");
    search();
  };
}

// An address with #crop=… searches with crops of the gallery; other screens link to it, and "back" works.
async function fromFragment() {
  const ids = new URLSearchParams(location.hash.slice(1)).get("crop")?.split(",").filter(Boolean) ?? [];
  if (ids.length === 0) return;
  try {
    const crops = await Promise.all(ids.slice(0, MAX_PICTURES).map((id) => call(["gallery", id])));
    probe.forEach((one) => one.forget());
    setProbe(crops.map(cropProbe));
    await search();
    window.scrollTo({ top: 0 });
    byId("verdict").focus({ preventScroll: true }); // what was pressed is gone
  } catch (error) {
    report(error, byId("problem"));
  }
}

function searchWith(cropId) {
  location.hash = `crop=${cropId}`;
}

function clearFragment() {
  if (location.hash !== "") history.pushState(null, "", location.pathname);
}

// The query ---------------------------------------------------------------------------------------------------------

// What the form says, by the API's names. Raises Trouble.
function options() {
  const top = byId("top-k").value.trim();
  if (!/^\d+$/.test(top) || Number(top) < 1 || Number(top) > 100) throw new Trouble("Identities shown: write a number from 1 to 100.");
  const [since, until] = [instantOf(byId("since")), instantOf(byId("until"))];
  if (since !== null && until !== null && since > until) throw new Trouble("“Seen from” lies after “Seen before”; swap them.");
  const said = {
    top_k: Number(top),
    camera: namesIn(byId("only-cameras"), "A camera"),
    exclude_camera: namesIn(byId("not-cameras"), "A camera"),
    since,
    until,
  };
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== null && value.length !== 0));
}

function optionsInSight() {
  try {
    return options();
  } catch (error) {
    byId("filters").open = true;
    throw error;
  }
}

function request() {
  if (probe.length === 0) throw new Trouble("Choose, drop or paste at least one picture of the person first.");
  const fields = optionsInSight();
  if (!probe[0].file) return { fields, json: { crop_ids: probe.map((one) => one.cropId), ...fields } };
  if (ATTENTION.checked) fields.explain = true;
  const form = new FormData();
  probe.forEach((one) => form.append("images", one.file, one.name));
  for (const [name, value] of Object.entries(fields)) [value].flat().forEach((each) => form.append(name, each));
  return { fields, form };
}

async function search() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  complain(byId("problem"), "");
  probe.forEach((one) => one.mark(false));
  try {
    const asked = request();
    byId("result").setAttribute("aria-busy", "true");
    const found = await call("query", { form: asked.form, json: asked.json, signal });
    if (!signal.aborted) show(found, asked);
  } catch (error) {
    explain(error);
  } finally {
    if (!signal.aborted) byId("result").removeAttribute("aria-busy");
  }
}

// A problem with one of the pictures says which, beside the picture too.
function explain(error) {
  const one = probe[error.problem?.index];
  one?.mark(true);
  if (one !== undefined && probe.length > 1) error.message = `Picture ${error.problem.index + 1} (${one.name}): ${error.message}`;
  if (one !== undefined) showNothing(); // what is there was found with other pictures
  report(error, byId("problem"));
}

// The result --------------------------------------------------------------------------------------------------------

function show(found, asked) {
  answer = found;
  byId("start").hidden = true;
  byId("result").hidden = false;
  byId("verdict").replaceWith(verdictOf(found));
  byId("matches").replaceChildren(...found.matches.map((match) => matchCard(match, found.match_distance, searchWith)));
  byId("curl").textContent = curlOf(probe, asked.fields);
  byId("json").textContent = "";
  byId("verdict").scrollIntoView({ block: "nearest" });
  showJson();
  showAttention();
}

function showJson() {
  if (byId("answer").open && answer !== null) byId("json").textContent = JSON.stringify(answer, null, 2);
}

function showAttention() {
  const { h, w, weights } = answer.attention ?? {};
  probe.forEach((one, index) => {
    if (one.file) one.cover(weights && ATTENTION.checked ? heatmap(h, w, weights[index]) : null);
  });
  coverCrops(running.signal);
}

// Lays the model's attention over the pictures of crops, one after the other: each is computed anew.
async function coverCrops(signal) {
  const covers = [...document.querySelectorAll("[data-attention]")];
  for (const image of covers) {
    if (signal.aborted) return;
    if (!ATTENTION.checked) image.uncover();
    else if (!(await covered(image, signal))) return;
  }
}

async function covered(image, signal) {
  try {
    image.cover(await call(["gallery", image.dataset.attention, "attention.png"], { as: "blob", signal }));
    return true;
  } catch (error) {
    if (error.kind === "no-stored-image") return true;
    report(error, byId("problem"));
    return false;
  }
}

function showNothing() {
  running?.abort();
  answer = null;
  byId("result").hidden = true;
  byId("start").hidden = false;
}

function startOver() {
  probe.forEach((one) => one.forget());
  setProbe([]);
  byId("query").reset();
  complain(byId("problem"), "");
  clearFragment();
  showNothing();
  byId("files").focus();
}

// The start ---------------------------------------------------------------------------------------------------------

async function welcome() {
  const ready = (await entrance) ?? (await call("readyz").catch((error) => report(error, byId("problem"))));
  if (ready?.service) report(new SignedOut(), byId("problem"));
  if (ready?.crops === undefined) return;
  byId("start").replaceChildren(ready.crops === 0 ? firstSteps(welcomeAgain) : invitation(ready));
}

async function welcomeAgain() {
  const ready = await call("readyz");
  byId("start").replaceChildren(invitation(ready));
  byId("try").focus();
}

function invitation(ready) {
  const size = `${count(ready.crops, "crop")} of ${count(ready.identities, "identity", "identities")}`;
  const button = el("button", { type: "button", id: "try" }, "Try it with a crop of the gallery");
  button.addEventListener("click", () => busy(button, tryOne));
  return el(
    "div",
    { class: "card stack empty" },
    el("h2", {}, "Who is this?"),
    el("p", {}, `The gallery has ${size}. Drop, paste or choose pictures of one person, and it answers who that is.`),
    el("div", { class: "actions" }, button),
  );
}

async function tryOne() {
  const { crops } = await call("gallery", { query: { limit: 1 } });
  if (crops.length > 0) location.hash = `crop=${crops[0].crop_id}`;
}

async function listCameras() {
  try {
    const { identities } = await call("identities", { query: { limit: 200 } });
    const cameras = [...new Set(identities.flatMap((one) => one.cameras))].sort();
    byId("cameras").replaceChildren(...cameras.map((name) => el("option", { value: name })));
  } catch {
    // names can be typed without being offered
  }
}

function listen() {
  byId("filters").open = matchMedia("(min-width: 62rem)").matches; // beside the result there is room for them
  byId("query").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("files").addEventListener("change", (event) => {
    addFiles(event.target.files);
    event.target.value = "";
  });
  byId("clear").addEventListener("click", startOver);
  byId("answer").addEventListener("toggle", showJson);
  byId("copy").addEventListener("click", () => busy(byId("copy"), copyCurl));
  ATTENTION.addEventListener("change", () => (probe.length > 0 && answer !== null ? changeAttention() : null));
  for (const id of ["only-cameras", "not-cameras"]) byId(id).addEventListener("focus", () => (listCameras.done ??= listCameras()));
  addEventListener("hashchange", fromFragment);
  listenForFiles();
}

// With pictures the model must look again; what it saw in crops can be asked for.
function changeAttention() {
  if (ATTENTION.checked && probe[0].file && answer.attention === undefined) search();
  else showAttention();
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
  } catch {
    throw new Trouble("The browser does not let the page copy; select the text and copy it by hand.");
  }
  say("Copied.", "done");
}

function listenForFiles() {
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) addFiles(event.clipboardData.files);
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").classList.remove("over");
    if (event.dataTransfer.files.length > 0) addFiles(event.dataTransfer.files);
    else complain(byId("problem"), "That was no file; drop pictures from a folder, or paste one.");
  });
}

listen();
welcome();
fromFragment();
