// Asks the public API, signs in where it wants a key, and says in a sentence what went wrong.

export const root = new URL("../../", import.meta.url);

// The document's element of this id.
export const byId = (id) => document.getElementById(id);

// A new element: el("a", {class: "name", href: "…"}, "text", child). A property that starts with "on" is a listener.
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// The same for SVG.
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat());
  return made;
}

// An answer that is an error. Its message is a sentence for people that says what to do.
export class Trouble extends Error {
  constructor(message, problem = {}, retryAfter = null) {
    super(message);
    this.problem = problem;
    this.status = problem.status ?? 0;
    this.kind = (problem.type ?? "").split("/").pop();
    this.retryAfter = retryAfter;
  }
}

// The visitor was asked for a key, and gave none.
export class SignedOut extends Trouble {
  constructor() {
    super("Sign in with an API key to go on.");
  }
}

const SILENT = "The service does not answer. Check that it runs and that you are connected, then try again.";
const NO_ADDRESS = "A browser cannot ask for an identity named “.” or “..”: give it another name with `resight identities rename`.";

// Calls the API: path relative to the root, e.g. "gallery" or ["gallery", id, "image"].
// options: method, query (object; arrays repeat), json (body), form (FormData), body, headers, signal,
// as ("json", "blob", "text" or "response"; default "json"). Answers null for 204. Raises Trouble, or AbortError.
export async function call(path, options = {}) {
  await entrance;
  const answer = await reach(path, options);
  if (answer.status !== 401) return read(answer, options.as);
  forget();
  await signIn();
  return read(await reach(path, options), options.as);
}

// The address of a path below the root; parts of an array are escaped. Raises Trouble for the identities "." and "..",
// which a browser takes for steps, however they are escaped.
export function address(path, query = {}) {
  if (Array.isArray(path) && path.some((part) => part === "." || part === "..")) throw new Trouble(NO_ADDRESS);
  const parts = Array.isArray(path) ? path.map(encodeURIComponent).join("/") : path;
  const url = new URL(parts, root);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
    }
  }
  return url;
}

async function reach(path, options) {
  const { method, query, json, form, headers, signal } = options;
  const url = address(path, query);
  const body = json === undefined ? (form ?? options.body) : JSON.stringify(json);
  const extra = json === undefined ? {} : { "Content-Type": "application/json" };
  try {
    return await fetch(url, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: { ...extra, ...headers },
      body,
      signal,
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(SILENT);
  }
}

async function read(answer, as = "json") {
  if (!answer.ok) throw await trouble(answer);
  if (as === "response") return answer;
  return answer.status === 204 ? null : answer[as]();
}

async function trouble(answer) {
  const problem = await answer.json().catch(() => ({}));
  const seconds = Number(answer.headers.get("Retry-After")) || null;
  return new Trouble(sentence(problem, answer.status, seconds), { status: answer.status, ...problem }, seconds);
}

function sentence(problem, status, seconds) {
  const said = [problem.detail ?? `The service answered with status ${status}; its log has the reason.`];
  said.push(...(problem.reasons ?? []));
  if (seconds !== null && !said[0].includes(`${seconds} s`)) said.push(`Try again in ${seconds} s.`);
  if (problem.type === "/problems/scope-too-small") said.push("Sign out, and in again with such a key.");
  return said.join(" ");
}

// Signing in -----------------------------------------------------------------------------------------------------

const ACCOUNT = "resight-account"; // who is signed in, to be shown; the cookie itself no script can read
const SCOPES = ["query", "enrol", "admin"]; // each may do what those before it may
let asking = null;

// What /readyz said when the page was opened. Whoever needs a key is asked for one before anything else is asked.
export const entrance = enter();

async function enter() {
  showAccount();
  byId("sign-out").addEventListener("click", signOut);
  addEventListener("storage", () => showAccount()); // another tab has signed in or out
  try {
    const ready = await (await reach("readyz", {})).json();
    if (ready.service === undefined) return ready;
    forget();
    await signIn();
    return await (await reach("readyz", {})).json();
  } catch {
    return null; // the page's own first question says what is wrong
  }
}

// What /readyz says, which tells its name, and no more, to who is not signed in. Raises Trouble, SignedOut among it.
export async function readiness() {
  const ready = await call("readyz");
  if (ready.service === undefined) return ready;
  forget();
  await signIn();
  return readiness();
}

// Asks for a key until one counts. Raises Trouble when the visitor cancels. Whoever asks meanwhile waits for the same.
export function signIn() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

function ask() {
  const dialog = byId("sign-in");
  const form = byId("sign-in-form");
  const listening = new AbortController();
  const on = (target, name, work) => target.addEventListener(name, work, { signal: listening.signal });
  dialog.showModal();
  return new Promise((done, failed) => {
    on(form, "submit", async (event) => {
      event.preventDefault();
      const account = await begin(form.elements.key);
      if (account === null) return;
      dialog.close("signed in");
      done(account);
    });
    on(byId("sign-in-cancel"), "click", () => dialog.close());
    on(dialog, "close", () => failed(new SignedOut()));
  }).finally(() => listening.abort());
}

async function begin(input) {
  const key = input.value.trim();
  try {
    if (!/^rsk_[\x21-\x7e]+$/.test(key)) throw new Trouble("This is no Resight key, which begins with rsk_ and has no spaces; copy all of it again.");
    const headers = { Authorization: `Bearer ${key}` };
    const account = await read(await reach("session", { method: "POST", headers }));
    input.value = "";
    complain(byId("sign-in-problem"), "");
    remember(account);
    return account;
  } catch (error) {
    complain(byId("sign-in-problem"), error.message);
    input.select();
    return null;
  }
}

async function signOut() {
  try {
    await read(await reach("session", { method: "DELETE" }));
    forget();
    location.reload();
  } catch (error) {
    say(error.message, "problem");
  }
}

function remember(account) {
  try {
    localStorage.setItem(ACCOUNT, JSON.stringify(account));
  } catch {
    // a browser that keeps nothing shows no name on the next page
  }
  showAccount(account);
}

function forget() {
  try {
    localStorage.removeItem(ACCOUNT);
  } catch {
    // nothing was kept
  }
  showAccount(null);
}

// {actor, scope} of who is signed in, as far as this browser knows; null where nobody is, or no key is needed.
export function account() {
  try {
    return JSON.parse(localStorage.getItem(ACCOUNT));
  } catch {
    return null;
  }
}

function showAccount(who = account()) {
  byId("account").hidden = who === null || who.expires_in === null;
  byId("account-name").textContent = who === null ? "" : `${who.actor} · ${who.scope}`;
  for (const part of document.querySelectorAll("[data-scope]")) part.disabled = !may(part.dataset.scope, who);
}

// Whether who is signed in may do what needs this scope; where this browser knows of nobody, the service decides.
export function may(scope, who = account()) {
  return who === null || SCOPES.indexOf(who.scope) >= SCOPES.indexOf(scope);
}

// What a page says ------------------------------------------------------------------------------------------------

// A message that stays a while; a problem stays until it is closed. kind: "info", "done" or "problem".
export function say(text, kind = "info") {
  const note = el("div", { class: `note ${kind}` }, el("p", {}, text));
  note.append(el("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => note.remove() }, "×"));
  const place = byId(kind === "problem" ? "alarms" : "news");
  while (place.children.length > 2) place.firstElementChild.remove();
  place.append(note);
  if (kind !== "problem") setTimeout(() => note.remove(), 8000);
}

// Shows a sentence in an element of class "problem" beside what it is about; "" hides it.
export function complain(place, text) {
  place.textContent = text;
  place.hidden = text === "";
  if (text !== "") place.scrollIntoView({ block: "nearest" });
}

// Runs work for a button: no second time at once, and problems are said in `place`, or as a message without one.
// Answers what work answers, undefined after a problem.
export async function busy(button, work, place = null) {
  if (button.getAttribute("aria-disabled") === "true") return undefined;
  button.setAttribute("aria-disabled", "true");
  try {
    if (place !== null) complain(place, "");
    return await work();
  } catch (error) {
    report(error, place);
    return undefined;
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

// Says what went wrong, in `place` or as a message. An answer that is not wanted any more is no problem.
export function report(error, place = null) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Trouble)) console.error(error);
  const text = error instanceof Trouble ? error.message : "The page made a mistake; load it again.";
  if (place === null) say(text, "problem");
  else complain(place, text);
}

// Small things ----------------------------------------------------------------------------------------------------

// The stored picture of a crop, with a grey figure in its place where none was kept.
export function picture(cropId, alt = "") {
  const image = el("img", { class: "crop", alt, loading: "lazy", decoding: "async", width: 64, height: 128 });
  image.addEventListener("error", () => (image.src = NO_PICTURE), { once: true });
  image.src = address(["gallery", cropId, "image"]);
  return image;
}

const NO_PICTURE = address("console/static/no-picture.svg").href;

// An identity's page.
export function identityLink(name) {
  const href = `${address("console/identity")}#${encodeURIComponent(name)}`;
  return el("a", { class: "identity", href }, name);
}

// A time of the API in the visitor's own form, as a <time>.
export function when(instant) {
  if (instant === null || instant === undefined) return el("span", { class: "faint" }, "no time");
  const text = new Date(instant).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return el("time", { datetime: instant }, text);
}

// What a datetime-local field says, as RFC 3339; null when it is empty. Raises Trouble for half a time, and for a year
// of more than four digits, which has no such form.
export function instantOf(input) {
  if (input.value === "" && !input.validity.badInput) return null;
  const time = new Date(input.value);
  if (time < YEAR_10000) return time.toISOString();
  throw new Trouble(`${input.labels[0].textContent}: write day, month, a year of four digits and time, or leave it empty.`);
}

const YEAR_10000 = Date.UTC(10000, 0);

// The names in a field, separated by commas or spaces. Raises Trouble for what cannot be a name.
export function namesIn(input, what = "A name") {
  const names = input.value.split(/[\s,;]+/).filter((name) => name !== "");
  names.forEach((name) => requireName(name, what));
  return names;
}

// Raises Trouble for what cannot be the name of an identity, a camera or a track.
export function requireName(name, what = "A name") {
  if (/^[A-Za-z0-9._:-]{1,128}$/.test(name)) return name;
  throw new Trouble(`${what} has 1 to 128 letters, digits and . _ : - only; “${name.slice(0, 40)}” is none.`);
}

// "1 crop", "2 crops"; "1 identity", "2 identities" with a plural of its own.
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
