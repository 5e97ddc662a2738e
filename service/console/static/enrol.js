// Enrolment: files are dropped or chosen, listed, sent in batches, and stay listed with what became of them.

import { call } from "./api.js";
import { counted, instant, nameTrouble } from "./crops.js";
import { byId, element } from "./dom.js";
import { Uploads } from "./uploads.js";

const MOST_ROWS = 100;
const DONE = ["created", "duplicate", "updated", "skipped"];
const ORDER = ["failed", "sending", "waiting", "skipped", "updated", "duplicate", "created"];

/** `enrolled()` is called when files were sent. */
export function startEnrolment(enrolled) {
  const uploads = new Uploads(post, () => show(uploads));
  const zone = byId("drop");
  byId("files").addEventListener("change", (event) => take(uploads, event.target));
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
  const trouble = formTrouble(uploads);
  byId("enrol-trouble").textContent = trouble;
  if (trouble) return;
  await uploads.run(sharedLabels(), byId("by-name").checked);
  enrolled();
}

function formTrouble(uploads) {
  if (!uploads.count("waiting")) return "Choose files first, or drop them here.";
  for (const [id, what] of [["enrol-identity", "an identity"], ["enrol-camera", "a camera"]]) {
    const name = byId(id).value.trim();
    if (name && nameTrouble(name, what)) return nameTrouble(name, what);
  }
  return byId("enrol-time").validity.badInput ? "Complete the time, day and hour, or clear it." : "";
}

function sharedLabels() {
  const labels = {
    identity: byId("enrol-identity").value.trim(),
    camera: byId("enrol-camera").value.trim(),
    captured_at: instant(byId("enrol-time").value),
  };
  return Object.fromEntries(Object.entries(labels).filter(([, value]) => value));
}

function post(batch) {
  const form = new FormData();
  form.append("on_error", "skip");
  form.append("items", JSON.stringify(batch.map((upload) => upload.labels)));
  for (const upload of batch) form.append("images", upload.file, upload.file.name);
  return call("POST", "/gallery", form);
}

// What is shown

function show(uploads) {
  const total = uploads.list.length;
  const failed = uploads.count("failed");
  byId("uploads").hidden = total === 0;
  byId("send").textContent = `Enrol ${counted(uploads.count("waiting"), "file")}`;
  byId("send").disabled = uploads.running;
  byId("retry").hidden = failed === 0 || uploads.running;
  byId("retry").textContent = `Try ${counted(failed, "failed file")} again`;
  byId("clear-done").hidden = uploads.count(...DONE) === 0 || uploads.running;
  byId("progress").max = Math.max(total, 1);
  byId("progress").value = total - uploads.count("waiting", "sending");
  byId("upload-summary").textContent = summary(uploads);
  showRows(uploads);
}

function summary(uploads) {
  const parts = ORDER.toReversed().map((state) => [uploads.count(state), state]);
  const text = parts.filter(([count]) => count).map(([count, state]) => `${count.toLocaleString()} ${state}`).join(", ");
  return uploads.notice ? `${text}. ${uploads.notice}` : text;
}

function showRows(uploads) {
  const listed = ORDER.flatMap((state) => uploads.list.filter((upload) => upload.state === state));
  const rows = listed.slice(0, MOST_ROWS).map((upload) => row(upload, uploads));
  byId("upload-rows").replaceChildren(...rows);
  const more = listed.length - rows.length;
  byId("upload-more").textContent = more ? `and ${counted(more, "file")} more` : "";
}

function row(upload, uploads) {
  const { identity, camera } = upload.labels;
  const said = [identity, camera].filter(Boolean).join(", ");
  const drop = element("button", { type: "button", className: "quiet", textContent: "Remove" });
  drop.setAttribute("aria-label", `Remove ${upload.file.name} from the list`);
  drop.addEventListener("click", () => uploads.remove(upload));
  return element(
    "tr",
    { className: `upload-${upload.state}` },
    element("td", { textContent: upload.file.name }),
    element("td", { textContent: said }),
    element("td", {}, element("strong", { textContent: upload.state }), upload.reason ? ` ${upload.reason}` : ""),
    element("td", {}, ...(["waiting", "failed"].includes(upload.state) ? [drop] : [])),
  );
}
