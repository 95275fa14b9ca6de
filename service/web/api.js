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

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  } catch {
    throw problemOf(0, "");
  }
  if (!answer.ok) throw problemOf(answer.status, await answer.text());
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
