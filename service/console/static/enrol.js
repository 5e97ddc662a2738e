// Enrolment: files are dropped or chosen, listed, sent in batches, and stay listed with what became of them.

import { byId, call, complain, count, el, instantOf, report, requireName, Trouble } from "./api.js";
import { said, Uploads } from "./uploads.js";

const COLOURS = { created: "good", updated: "good", skipped: "warn", failed: "bad" };
const MOST_ROWS = 100;
const DONE = ["created", "duplicate", "updated", "skipped"];
const ORDER = ["failed", "sending", "waiting", "skipped", "updated", "duplicate", "created"];

/** `enrolled()` is called when files were sent. */
export function startEnrolment(enrolled) {
  const uploads = new Uploads(post, () => show(uploads));
  const zone = byId("main"); // the whole page takes files
  byId("files").addEventListener("change", (event) => take(uploads, event.target));
  byId("by-name").addEventListener("change", () => show(uploads));
  byId("enrol").addEventListener("submit", (event) => submit(event, uploads, enrolled));
  byId("retry").addEventListener("click", () => retry(uploads, enrolled));
  byId("clear-done").addEventListener("click", () => uploads.clearDone());
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => hover(event, zone));
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => drop(event, zone, uploads));
  window.addEventListener("beforeunload", (event) => uploads.running && event.preventDefault());
  show(uploads);
}

function hover(event, zone) {
  event.preventDefault();
  zone.classList.add("over");
}

async function drop(event, zone, uploads) {
  hover(event, zone);
  zone.classList.remove("over");
  byId("enrol-box").open = true;
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.some((entry) => entry.isDirectory)) uploads.add(await filesOf(entries));
  else uploads.add(event.dataTransfer.files);
}

/** The files of dropped folders, however deep. */
async function filesOf(entries) {
  const files = [];
  for (const entry of entries) {
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else files.push(...(await filesOf(await children(entry.createReader()))));
  }
  return files;
}

async function children(reader) {
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return all;
    all.push(...some);
  }
}

function take(uploads, input) {
  uploads.add(input.files);
  input.value = ""; // so that the same file may be chosen again
}

function submit(event, uploads, enrolled) {
  event.preventDefault();
  send(uploads, enrolled);
}

function retry(uploads, enrolled) {
  uploads.retry();
  send(uploads, enrolled);
}

async function send(uploads, enrolled) {
  try {
    complain(byId("enrol-problem"), "");
    if (!uploads.count("waiting")) throw new Trouble("Choose files first, or drop them here.");
    await uploads.run(sharedLabels(), byId("by-name").checked);
  } catch (error) {
    return report(error, byId("enrol-problem"));
  }
  return enrolled();
}

function sharedLabels() {
  const identity = byId("enrol-identity").value.trim();
  const camera = byId("enrol-camera").value.trim();
  const time = instantOf(byId("enrol-time"));
  return {
    ...(identity && { identity: requireName(identity, "An identity") }),
    ...(camera && { camera: requireName(camera, "A camera") }),
    ...(time && { captured_at: time }),
  };
}

function post(batch) {
  const form = new FormData();
  form.append("on_error", "skip");
  form.append("items", JSON.stringify(batch.map((upload) => upload.labels)));
  for (const upload of batch) form.append("images", upload.file, upload.file.name);
  return call("gallery", { form });
}

// What is shown

function show(uploads) {
  const total = uploads.list.length;
  const failed = uploads.count("failed");
  byId("uploads").hidden = total === 0;
  const waiting = uploads.count("waiting");
  byId("send").textContent = waiting ? `Enrol ${count(waiting, "file")}` : "Enrol";
  byId("send").disabled = uploads.running;
  byId("retry").hidden = failed === 0 || uploads.running;
  byId("retry").textContent = `Try ${count(failed, "failed file")} again`;
  byId("clear-done").hidden = uploads.count(...DONE) === 0 || uploads.running;
  byId("progress").max = Math.max(total, 1);
  byId("progress").value = total - uploads.count("waiting", "sending");
  byId("upload-summary").textContent = summary(uploads);
  showRows(uploads);
}

function summary(uploads) {
  const states = ORDER.toReversed().filter((state) => uploads.count(state));
  const text = states.map((state) => `${uploads.count(state).toLocaleString("en")} ${state}`).join(", ");
  return uploads.notice ? `${text}. ${uploads.notice}` : text;
}

function showRows(uploads) {
  const listed = ORDER.flatMap((state) => uploads.list.filter((upload) => upload.state === state));
  const rows = listed.slice(0, MOST_ROWS).map((upload) => row(upload, uploads));
  byId("upload-rows").replaceChildren(...rows);
  const more = listed.length - rows.length;
  byId("upload-more").textContent = more ? `and ${count(more, "file")} more` : "";
}

function row(upload, uploads) {
  const labels = upload.ready ? upload.labels : said(upload, byId("by-name").checked).labels;
  const open = ["waiting", "failed"].includes(upload.state);
  return el(
    "tr",
    {},
    el("td", { class: "file-name" }, upload.file.name),
    el("td", {}, [labels.identity, labels.camera].filter(Boolean).join(", ")),
    el("td", {}, el("span", { class: `badge ${COLOURS[upload.state] ?? ""}` }, upload.state), " ", upload.reason),
    el("td", {}, open && remover(upload, uploads)),
  );
}

function remover(upload, uploads) {
  const label = `Remove ${upload.file.name} from the list`;
  const onclick = () => uploads.remove(upload);
  return el("button", { type: "button", class: "quiet", "aria-label": label, onclick }, "Remove");
}
