import { ask, bytes, jobPath, moment, ownKey, problemOf, seconds, showProblem, STATES } from "/web/api.js";
import { drawCurves, readCurves } from "/web/curves.js";
import { Head } from "/web/head.js";
import { Player } from "/web/player.js";
import { boundsOf, readPly } from "/web/ply.js";
import { Viewer } from "/web/viewer.js";

const $ = (id) => document.getElementById(id);
const id = decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1) || "");
const STAGES = {
  decoding: "Reading the file", preprocessing: "Finding the face", stage1: "Fitting each frame",
  stage2: "Fitting all frames together", meshing: "Making meshes", exporting: "Writing files",
};
const ENDED = ["succeeded", "failed", "cancelled"];
const KEPT_BYTES = 400e6;
let job = null;
let shownResult = false;

// ---------------------------------------------------------------- the job and how far it is

async function refresh() {
  try {
    job = await ask(jobPath(id));
    showProblem($("problem"), null);
    show();
  } catch (error) {
    const nowhere = { title: error.title, message: "The address is mistyped, or the reconstruction belongs to another key. What is yours stands under All reconstructions." };
    showProblem($("problem"), error.code === "job_not_found" ? nowhere : error);
    if (["job_not_found", "job_deleted"].includes(error.code)) {
      for (const part of ["sharing", "progress", "result", "files", "warnings", "cancel", "retry", "delete"]) $(part).hidden = true;
      job = null;
    }
    throw error;
  }
}

function show() {
  $("title").textContent = job.input.filename;
  document.title = `${job.input.filename} · ${STATES[job.state]} · MonoNPHM`;
  const size = job.input.width ? `${job.input.width} × ${job.input.height}` : null;
  const took = job.started_at && job.finished_at ? `took ${seconds((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}` : null;
  $("facts").textContent = [moment(job.created_at), bytes(job.input.bytes), size, `${job.options.quality} quality`, took,
    job.model && job.model.name ? `model ${job.model.name}` : null, job.expires_at ? `kept until ${moment(job.expires_at)}` : null]
    .filter(Boolean).join(" · ");
  $("progress").hidden = job.state === "succeeded";
  $("state").textContent = STATES[job.state];
  $("state").className = `badge ${job.state}`;
  $("bar").value = job.progress.percent;
  $("bar").hidden = ENDED.includes(job.state);
  $("stages").hidden = ENDED.includes(job.state);
  $("doing").textContent = sentence();
  const names = Object.keys(STAGES).filter((name) => !/^stage\d$/.test(name) || !job.options.stages || job.options.stages.includes(Number(name.at(-1))));
  const now = names.indexOf(job.stage);
  $("stages").replaceChildren(...names.map((name, place) => {
    const item = document.createElement("li");
    item.textContent = STAGES[name];
    if (now >= 0 && place < now) item.className = "done";
    if (place === now) { item.className = "now"; item.setAttribute("aria-current", "step"); }
    return item;
  }));
  if (job.error) showProblem($("problem"), { title: job.error.title, message: job.error.detail });
  list($("warning-list"), job.warnings.map((text) => [document.createTextNode(text)]));
  $("warnings").hidden = job.warnings.length === 0;
  $("cancel").hidden = !job.links.cancel;
  $("retry").hidden = !job.links.retry;
  $("delete").hidden = false;
  $("sharing").hidden = job.state !== "succeeded";
  if (job.state === "succeeded" && !shownResult) {
    shownResult = true;
    showResult().catch((error) => showProblem($("problem"), error));
  }
}

function sentence() {
  if (job.state === "queued") return job.queue_position > 1 ? `${job.queue_position - 1} before it` : "next in line";
  if (job.state === "running") {
    const frames = job.progress.frames_total > 1 ? `, frame ${Math.min(job.progress.frames_done + 1, job.progress.frames_total)} of ${job.progress.frames_total}` : "";
    const attempt = job.attempts > 1 ? ` (attempt ${job.attempts})` : "";
    return `${Math.floor(job.progress.percent)} % · ${STAGES[job.stage] || "Starting"}${frames}${attempt}`;
  }
  return { cancelling: "waiting until the device is free", cancelled: "stopped as you asked", failed: job.error && job.error.stage ? `while: ${STAGES[job.error.stage] || job.error.stage}` : "" }[job.state] || "";
}

// Events where they get through, asking where they do not. A reconnecting EventSource resumes by itself.
function follow() {
  let polling = null;
  const poll = () => {
    polling = polling || setInterval(async () => {
      try { await refresh(); } catch (error) { if (!job && error.status) stop(); return; }
      if (ENDED.includes(job.state)) stop();
    }, 1500);
  };
  const source = new EventSource(`${jobPath(id)}/events`);
  const queueLook = setInterval(() => { if (job && job.state === "queued") refresh().catch(() => {}); }, 5000);
  const stop = () => { source.close(); clearInterval(polling); clearInterval(queueLook); };
  source.addEventListener("progress", (event) => {
    if (!job || !["running", "queued"].includes(job.state)) return;
    const data = JSON.parse(event.data);
    if (data.percent < job.progress.percent) return;
    const { stage, percent, step, total, frames_done, frames_total } = data;
    job = { ...job, state: "running", stage, progress: { percent, step, total, frames_done, frames_total } };
    show();
  });
  source.addEventListener("state", async (event) => {
    const { state } = JSON.parse(event.data);
    try { await refresh(); } catch { /* shown */ }
    if (ENDED.includes(state) || state === "deleted") stop();
  });
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) poll(); };
}

// ---------------------------------------------------------------- the result

async function showResult() {
  const { items } = await ask(`${jobPath(id)}/artifacts`);
  const named = new Map(items.map((item) => [item.name, item]));
  showFiles(items);
  const film = showPreview(named);
  let manifest = {};
  if (named.has("manifest.json")) manifest = await ask(named.get("manifest.json").href).catch(() => ({}));
  const fits = new Map(((manifest.quality || {}).frames || []).map((frame) => [frame.frame_index, frame]));
  showFigures(manifest.quality || {});
  const meshes = items.filter((item) => item.role === "mesh").map((item) => {
    const index = Number((item.name.match(/(\d+)\.\w+$/) || [])[1] || 0);
    return { ...item, index, fit: fits.get(index) || null };
  }).sort((a, b) => a.index - b.index);
  $("result").hidden = false;
  offerActors().catch(() => {}); // an extra; the page is whole without it
  await showHead(named, meshes, film, manifest);
}

function list(parent, rows) {
  parent.replaceChildren(...rows.map((children) => {
    const item = document.createElement("li");
    item.append(...children);
    return item;
  }));
}

function fileRow(item) {
  const link = document.createElement("a");
  link.href = item.href;
  link.download = item.name.split("/").at(-1);
  link.textContent = item.name;
  const size = document.createElement("span");
  size.textContent = bytes(item.bytes);
  return [link, size];
}

function showFiles(items) {
  const meshes = items.filter((item) => item.role === "mesh");
  list($("file-list"), items.filter((item) => item.role !== "mesh").map(fileRow));
  list($("mesh-list"), meshes.map(fileRow));
  $("meshes").hidden = meshes.length === 0;
  $("meshes-title").textContent = `${meshes.length} ${meshes.length === 1 ? "mesh" : "meshes"}, one a frame`;
  $("zip").href = `${jobPath(id)}/artifacts.zip`;
  $("total").textContent = bytes(items.reduce((sum, item) => sum + item.bytes, 0));
  $("files").hidden = false;
}

function showPreview(named) {
  const [film, still] = [named.get("preview.mp4"), named.get("preview.png")];
  if (!film && !still) return null;
  const picture = document.createElement(film ? "video" : "img");
  picture.src = (film || still).href;
  if (film) Object.assign(picture, { controls: true, loop: true, muted: true, playsInline: true, preload: "metadata" });
  else picture.alt = "Input, the mesh over it, and the mesh alone; below, its colour error, the mesh in its colours, and turned";
  $("preview").prepend(picture);
  $("preview").hidden = false;
  return film ? picture : null;
}

function showFigures(quality) {
  const mean = (figure, digits, unit, scale = 1) => figure && Number.isFinite(figure.mean) ? `${(figure.mean * scale).toFixed(digits)}${unit}` : null;
  const figures = [
    [quality.frames_tracked ? `${quality.frames_accepted} of ${quality.frames_tracked}` : null, "frames accepted"],
    [mean(quality.landmark_error_px, 1, " px"), "landmark error"],
    [mean(quality.silhouette_iou, 0, " %", 100), "silhouette overlap"],
    [mean(quality.photometric_error, 1, " %", 100), "colour difference"],
    [mean(quality.psnr_db, 1, " dB"), "colours against the picture (PSNR)"],
  ].filter(([value]) => value !== null);
  list($("figures"), figures.map(([value, meaning]) => {
    const [strong, span] = [document.createElement("strong"), document.createElement("span")];
    strong.textContent = value;
    span.textContent = meaning;
    return [strong, span];
  }));
}

// Other finished clips by the same model: any of them can act with this head.
async function offerActors() {
  const { items } = await ask("/reconstructions?state=succeeded&limit=50");
  const sha256 = job.model && job.model.sha256;
  const actors = items.filter((other) => other.id !== id && other.model && other.model.sha256 === sha256);
  $("actor").replaceChildren(...actors.map((other) => new Option(`${other.input.filename}, ${moment(other.created_at)}`, other.id)));
  $("acting").hidden = actors.length === 0;
}

$("acting").addEventListener("submit", (event) => {
  event.preventDefault();
  const options = {
    method: "POST", headers: { Accept: "application/json", "Content-Type": "application/json" },
    body: JSON.stringify({ identity: id, expressions: $("actor").value }),
  };
  act("/animations", options, (made) => location.assign(`/r/${encodeURIComponent(made.id)}`));
});

// ---------------------------------------------------------------- the head in 3D

// The animated file where there is one; else the meshes of the frames, one after the other.
async function showHead(named, meshes, film, manifest) {
  const animation = named.get("animation.glb");
  if (animation) await showAnimation(animation, meshes, film, manifest, named.get("blendshapes.csv"));
  else if (meshes.length) await showMeshes(meshes, film);
  else document.querySelector(".stage3d").hidden = true;
}

async function showAnimation(animation, meshes, film, manifest, table) {
  const said = $("view-said");
  said.textContent = `Loading ${bytes(animation.bytes)} …`;
  let head, times;
  try {
    head = new Head($("view"));
    times = await head.load(animation.href);
  } catch (error) {
    said.textContent = error.message;
    return;
  }
  said.textContent = "";
  const fits = (manifest.quality || {}).frames || [];
  const frames = times.map((seconds, place) => ({ index: fits[place] ? fits[place].frame_index : place, seconds, fit: fits[place] || null }));
  const player = new Player(frames, (place, seconds) => head.seek(seconds), film);
  buttons(head.looks.map(([look, name]) => ({
    name, pressed: () => head.look === look, press: () => { head.setLook(look); showScale(head.scale); },
  })));
  $("still").hidden = frames.length < 2;
  $("still").addEventListener("click", () => {
    head.still = !head.still;
    $("still").setAttribute("aria-pressed", String(head.still));
    player.go(player.place);
  });
  $("reset").addEventListener("click", () => head.reset());
  player.go(0);
  document.body.dataset.head = "shown";
  if (!table) return;
  const answer = await fetch(table.href);
  if (!answer.ok) return;
  player.onplace = drawCurves($("curves"), $("curve-names"), readCurves(await answer.text()));
  player.onplace(player.place);
}

// What the colours of the head mean, where they stand for numbers.
function showScale(scale) {
  $("scale").hidden = !scale;
  if (!scale) return;
  $("scale-says").textContent = scale.says;
  $("scale-to").textContent = `${scale.to} and more`;
  $("scale-bar").replaceChildren(...scale.colours.map((colour) => {
    const box = document.createElement("span");
    box.style.backgroundColor = `rgb(${colour.join(" ")})`;
    return box;
  }));
}

function buttons(choices) {
  const made = choices.map(({ name, press }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => { press(); say(); });
    return button;
  });
  const say = () => made.forEach((button, k) => button.setAttribute("aria-pressed", String(choices[k].pressed())));
  $("looks").replaceChildren(...made);
  say();
}

async function showMeshes(meshes, film) {
  const said = $("view-said");
  if (!meshes[0].name.endsWith(".ply")) {
    said.textContent = "The view shows animation.glb or PLY meshes; what there is can be downloaded below.";
    return;
  }
  let viewer;
  try {
    viewer = new Viewer($("view"));
  } catch (error) {
    said.textContent = error.message;
    return;
  }
  const loaded = new Map(); // place -> promise of {gpu, bytes}, least recently used first
  let wanted = 0, framed = false;

  const load = (place) => {
    const known = loaded.get(place);
    if (known) { loaded.delete(place); loaded.set(place, known); return known; }
    const coming = (async () => {
      const answer = await fetch(meshes[place].href);
      if (!answer.ok) throw problemOf(answer.status, await answer.text());
      const buffer = await answer.arrayBuffer();
      const mesh = readPly(buffer);
      if (!framed) { framed = true; viewer.frame(boundsOf(mesh.positions)); }
      return { gpu: viewer.upload(mesh), bytes: buffer.byteLength };
    })();
    loaded.set(place, coming);
    coming.then(forgetOld, () => loaded.delete(place));
    return coming;
  };
  const forgetOld = async () => {
    let kept = 0;
    for (const [place, promise] of [...loaded].reverse()) {
      const entry = await Promise.race([promise, null]);
      if (!entry) continue;
      kept += entry.bytes;
      if (kept > KEPT_BYTES && Math.abs(place - wanted) > 2 && viewer.forget(entry.gpu)) loaded.delete(place);
    }
  };
  const show = async (place) => {
    wanted = place;
    const slow = setTimeout(() => { said.textContent = "Loading …"; }, 250);
    try {
      const entry = await load(place);
      if (wanted === place) viewer.show(entry.gpu);
      load((place + 1) % meshes.length).catch(() => {});
      said.textContent = "";
    } catch (error) {
      said.textContent = error.message;
    } finally {
      clearTimeout(slow);
    }
  };
  const frames = meshes.map(({ index, fit }, place) => ({ index, fit, seconds: fit && Number.isFinite(fit.timestamp_s) ? fit.timestamp_s : place / 10 }));
  const player = new Player(frames, show, film);
  buttons([["Colours", true], ["Shape", false]].map(([name, value]) => ({
    name, pressed: () => viewer.useColours === value, press: () => { viewer.useColours = value; viewer.draw(); },
  })));
  $("reset").addEventListener("click", () => viewer.reset());
  viewer.onrestored = () => { loaded.clear(); player.go(wanted); };
  await player.go(0);
  document.body.dataset.head = "shown";
}

// ---------------------------------------------------------------- what can be done with it

const link = () => `${location.origin}${location.pathname}${$("share-key").value.trim() ? `#key=${$("share-key").value.trim()}` : ""}`;
$("share").addEventListener("click", () => {
  $("share-key-row").hidden = !ownKey(); // a server without keys needs none in its links
  $("share-link").value = link();
  $("share-box").showModal();
});
$("share-key").addEventListener("input", () => { $("share-link").value = link(); });
$("share-close").addEventListener("click", () => $("share-box").close());
$("share-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("share-link").select();
  try { await navigator.clipboard.writeText($("share-link").value); } catch { document.execCommand("copy"); }
  $("share-box").close();
  $("share-said").textContent = "Copied.";
});

async function act(path, options, then) {
  try {
    then(await ask(path, options));
  } catch (error) {
    showProblem($("problem"), error);
  }
}

$("cancel").addEventListener("click", () => act(job.links.cancel, { method: "POST" }, (now) => { job = now; show(); }));
$("retry").addEventListener("click", () => act(job.links.retry, { method: "POST" }, (now) => location.assign(`/r/${encodeURIComponent(now.id)}`)));
$("delete").addEventListener("click", () => $("sure").showModal());
$("sure").addEventListener("close", () => {
  if ($("sure").returnValue === "yes") act(jobPath(id), { method: "DELETE" }, () => location.assign("/"));
});

function begin() {
  refresh().then(
    () => { if (!ENDED.includes(job.state)) follow(); },
    (error) => { if (![404, 410, 422].includes(error.status)) setTimeout(begin, 3000); },
  );
}
begin();
