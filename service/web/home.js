import { ask, bytes, jobPath, moment, newKey, Refused, seconds, showProblem, STATES } from "/web/api.js";
import { Upload } from "/web/upload.js";

const $ = (id) => document.getElementById(id);
const PAGE = 20;
let limits = null;
let sending = null;
let shown = PAGE;

async function readLimits() {
  try {
    limits = await ask("/limits");
    const upload = limits.upload;
    $("limits").textContent = `Up to ${bytes(upload.max_bytes)}, ${seconds(upload.max_duration_s)}, ` +
      `at least ${upload.min_side_px} pixels a side. MP4, MOV, WebM, MKV, AVI, JPEG, PNG, WebP, HEIC.`;
  } catch (error) {
    $("limits").textContent = error.message;
  }
}

async function readServer() {
  try {
    await ask("/health/ready");
    $("server").textContent = "";
  } catch (error) {
    $("server").textContent = error.code === "not_ready" ? "The worker is not ready yet; what you send waits for it." : error.message;
  }
}

function send(file) {
  if (sending) return;
  showProblem($("problem"), null);
  if (limits && file.size > limits.upload.max_bytes) {
    showProblem($("problem"), new Refused({
      title: "Media too large",
      detail: `${file.name} has ${bytes(file.size)}; at most ${bytes(limits.upload.max_bytes)} are accepted. Cut or re-encode the clip.`,
    }));
    return;
  }
  const options = { quality: $("quality").value };
  const frames = $("frames").valueAsNumber;
  if (frames >= 1) options.max_frames = Math.floor(frames);
  $("name").textContent = file.name;
  $("size").textContent = bytes(file.size);
  $("bar").value = 0;
  $("said").textContent = "Sending";
  $("sending").hidden = false;
  sending = new Upload(file, (sent, total, waiting) => {
    $("bar").value = sent / total;
    const share = `${Math.floor(100 * sent / total)} %`;
    $("said").textContent = waiting ? `The connection broke at ${share}; trying again` : sent < total ? `Sending: ${share}` : "Checking";
  });
  submit(sending, options).catch(ended);
}

async function submit(upload, options) {
  const upload_id = await upload.send();
  if (upload_id === null) return;
  let job;
  try {
    job = await ask("/reconstructions", {
      method: "POST", headers: { Accept: "application/json", "Content-Type": "application/json", "Idempotency-Key": newKey() },
      body: JSON.stringify({ upload_id, options }),
    });
  } catch (error) {
    if (error.status >= 400 && error.status < 500) upload.stop();
    throw error;
  }
  upload.forget();
  location.assign(`/r/${encodeURIComponent(job.id)}`);
}

function ended(error) {
  sending = null;
  $("sending").hidden = true;
  $("file").value = "";
  showProblem($("problem"), error);
}

function row(job) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/r/${encodeURIComponent(job.id)}`;
  let thumb = document.createElement("span");
  if (job.state === "succeeded") {
    thumb = document.createElement("img");
    thumb.src = `${jobPath(job.id)}/artifacts/thumbnail.jpg`;
    thumb.loading = "lazy";
    thumb.onerror = () => thumb.replaceWith(Object.assign(document.createElement("span"), { className: "thumb" }));
    thumb.alt = "";
  }
  thumb.className = "thumb";
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = job.input.filename;
  const badge = document.createElement("span");
  badge.className = `badge ${job.state}`;
  badge.textContent = job.state === "running" ? `${Math.floor(job.progress.percent)} %` : STATES[job.state];
  const when = document.createElement("span");
  when.className = "when";
  when.textContent = [moment(job.created_at), bytes(job.input.bytes), job.options.quality, job.error && job.error.title]
    .filter(Boolean).join(" · ");
  link.append(thumb, name, badge, when);
  item.append(link);
  return item;
}

let last = "";
async function readJobs() {
  try {
    const jobs = [];
    let cursor = null;
    let more = true;
    while (more && jobs.length < shown) {
      const page = await ask(`/reconstructions?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
      jobs.push(...page.items);
      cursor = page.next_cursor;
      more = Boolean(cursor);
    }
    const text = JSON.stringify(jobs);
    if (text !== last) $("jobs").replaceChildren(...jobs.map(row));
    last = text;
    $("none").hidden = jobs.length > 0;
    $("older").hidden = !more;
  } catch (error) {
    $("server").textContent = error.message;
  }
}

$("file").addEventListener("change", () => { if ($("file").files[0]) send($("file").files[0]); });
$("stop").addEventListener("click", () => { if (sending) { sending.stop(); ended(null); } });
$("older").addEventListener("click", () => { shown += PAGE; readJobs(); });
$("form").addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const files = event.dataTransfer ? event.dataTransfer.files : [];
  if (files.length > 1) {
    showProblem($("problem"), new Refused({ title: "One file at a time", detail: "Drop one video or picture." }));
  } else if (files[0]) {
    send(files[0]);
  }
});
readLimits();
readServer();
readJobs();
setInterval(() => { if (!document.hidden) { readJobs(); readServer(); } }, 4000);
