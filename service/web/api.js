// Talking to the API of this server, and saying numbers as people do. Text from outside only ever becomes textContent.

export class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.title = problem.title || "That did not work";
    this.code = problem.code || "";
    this.status = problem.status || 0;
  }
}

export function problemOf(status, text) {
  try {
    const problem = JSON.parse(text);
    if (problem && problem.title) return new Refused(problem);
  } catch { /* not ours */ }
  if (status === 0) return new Refused({ title: "No answer", detail: "The server does not answer. Is it running? Try again." });
  return new Refused({ title: `The server answered ${status}`, detail: "Try again in a moment.", status });
}

// The key of this server, where it wants one: typed into the box below, or brought by a shared link as #key=….
const COOKIE = "mononphm_key";
export const ownKey = () => (document.cookie.match(new RegExp(`(?:^|; )${COOKIE}=([^;]*)`)) || [])[1] || "";

function keep(key) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${COOKIE}=${key.replace(/[^\w.-]/g, "")}; Path=/; SameSite=Strict${secure}`;
}

const brought = location.hash.match(/^#key=([\w.-]+)$/);
if (brought) {
  keep(brought[1]);
  history.replaceState(null, "", location.pathname + location.search); // out of sight, and out of the next copied address
}

let box = null;
function askForKey(words) {
  if (box) return;
  box = document.createElement("dialog");
  const form = document.createElement("form"), label = document.createElement("label"), field = document.createElement("input");
  const go = document.createElement("button");
  form.method = "dialog";
  Object.assign(field, { type: "password", required: true, autocomplete: "current-password", id: "key-field" });
  Object.assign(label, { htmlFor: "key-field", textContent: words });
  go.textContent = "Open";
  form.append(label, field, go);
  form.addEventListener("submit", () => { keep(field.value.trim()); location.reload(); });
  box.setAttribute("aria-label", "API key");
  box.className = "key-box";
  box.append(form);
  box.addEventListener("close", () => { box.remove(); box = null; });
  document.body.append(box);
  box.showModal();
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  } catch {
    throw problemOf(0, "");
  }
  if (!answer.ok) {
    const problem = problemOf(answer.status, await answer.text());
    if (problem.code === "key_missing") askForKey("This server asks for a key. Whoever runs it makes one with “mononphm keys create”.");
    if (problem.code === "key_invalid") askForKey("That key is not valid here, or not any more. Another one:");
    throw problem;
  }
  return answer.json();
}

export function showProblem(box, error) {
  box.hidden = !error;
  if (!error) return;
  const title = document.createElement("strong");
  title.textContent = error.title || "Something went wrong";
  box.replaceChildren(title, error.message);
}

export const jobPath = (id) => `/reconstructions/${encodeURIComponent(id)}`;

export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function bytes(count) {
  const units = ["bytes", "KB", "MB", "GB"];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) { count /= 1000; power += 1; }
  return `${power ? count.toPrecision(3) : count} ${units[power]}`;
}

export function seconds(count) {
  if (count < 90) return `${Math.round(count)} s`;
  if (count < 5400) return `${Math.round(count / 60)} min`;
  return `${(count / 3600).toFixed(1)} h`;
}

export function moment(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export const STATES = {
  queued: "waiting", running: "running", cancelling: "stopping", succeeded: "done", failed: "failed", cancelled: "cancelled",
};
