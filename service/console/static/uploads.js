// The files that are to be enrolled: each keeps its state, its labels and, where it failed, the reason.

import { readMarketName } from "./marketnames.js";

const BATCH_FILES = 32;
const BATCH_BYTES = 32 * 2 ** 20;
const FILE_BYTES = 8 * 2 ** 20;
const TRIES = 5; // of a batch that the service is too busy for

export class Uploads {
  /** `send(batch)` posts files and answers their results; `changed()` is told of every change. */
  constructor(send, changed) {
    this.send = send;
    this.changed = changed;
    this.list = [];
    this.running = false;
    this.notice = "";
  }

  add(files) {
    for (const file of files) this.list.push({ file, state: "waiting", reason: "", labels: {} });
    this.changed();
  }

  count(...states) {
    return this.list.filter((upload) => states.includes(upload.state)).length;
  }

  clearDone() {
    this.list = this.list.filter((upload) => ["waiting", "sending", "failed"].includes(upload.state));
    this.changed();
  }

  remove(upload) {
    this.list = this.list.filter((other) => other !== upload);
    this.changed();
  }

  retry() {
    for (const upload of this.list) if (upload.state === "failed") again(upload);
    this.changed();
  }

  /** Sends all that waits. `shared` are the form's labels, `byName` whether names are read, too. */
  async run(shared, byName) {
    if (this.running) return;
    this.running = true;
    for (let batch = this.next(shared, byName); batch.length; batch = this.next(shared, byName)) {
      await this.sendBatch(batch);
    }
    this.running = false;
    this.notice = "";
    this.changed();
  }

  /** What is sent next; files that were added meanwhile are among it. */
  next(shared, byName) {
    for (const upload of this.list) if (upload.state === "waiting" && !upload.ready) prepare(upload, shared, byName);
    const batch = [];
    let bytes = 0;
    for (const upload of this.list) {
      if (upload.state !== "waiting") continue;
      bytes += upload.file.size;
      if (batch.length === BATCH_FILES || (batch.length && bytes > BATCH_BYTES)) break;
      batch.push(upload);
    }
    return batch;
  }

  async sendBatch(batch) {
    for (const upload of batch) upload.state = "sending";
    this.changed();
    await Promise.all(batch.map(requireReadable));
    batch = batch.filter((upload) => upload.state === "sending");
    if (!batch.length) return;
    try {
      const answer = await this.patiently(batch);
      for (const result of answer.results) settle(batch[result.index], result);
    } catch (error) {
      for (const upload of batch) fail(upload, error.message);
    }
    this.changed();
  }

  async patiently(batch) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.send(batch);
      } catch (error) {
        if (![429, 503].includes(error.status) || tries === TRIES) throw error;
        await this.pause(error.retryAfter ?? 5);
      }
    }
  }

  async pause(seconds) {
    this.notice = `The service is busy; going on in ${seconds} s.`;
    this.changed();
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    this.notice = "";
  }
}

/** What a file's name says: `{identity, camera}`, and whether it is junk; nothing unless names are read. */
export function said(upload, byName) {
  const named = byName ? readMarketName(upload.file.name) : null;
  if (!named) return { labels: {}, junk: false };
  return { labels: { identity: named.identity ?? undefined, camera: named.camera }, junk: named.junk };
}

function prepare(upload, shared, byName) {
  const { labels, junk } = said(upload, byName);
  upload.labels = { ...shared, ...labels };
  upload.ready = true;
  if (junk) leaveOut(upload);
  else if (!upload.file.size) fail(upload, "The file is empty; choose another one.");
  else if (upload.file.size > FILE_BYTES) fail(upload, "A file may have 8 MiB; send the crop of one person.");
}

/** A file that was moved or changed since it was chosen would take its whole batch down. */
async function requireReadable(upload) {
  try {
    await upload.file.slice(0, 1).arrayBuffer();
  } catch {
    fail(upload, "The file cannot be read any more; choose it again.");
  }
}

function leaveOut(upload) {
  upload.state = "skipped";
  upload.reason = "Left out: its name marks it as junk (-1).";
}

function again(upload) {
  upload.state = "waiting";
  upload.ready = false;
  upload.reason = "";
}

function fail(upload, reason) {
  upload.state = "failed";
  upload.reason = reason;
}

function settle(upload, result) {
  if (result.status === "failed") return fail(upload, result.problem.detail);
  upload.state = result.status;
  upload.labels.identity = result.identity;
  upload.labels.camera = result.camera;
  return undefined;
}
