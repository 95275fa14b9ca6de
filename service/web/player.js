// Frames of a clip under one slider: scrub, play in the clip's own time, and the film in step with it.

const $ = (id) => document.getElementById(id);
const REAL_TIME_GAP_S = 0.25; // as the film's writer has it: with frames further apart it shows them as slides
const SLIDES_PER_S = 8;

export class Player {
  // frames: [{index, seconds, fit}]; show(place, seconds) draws; film: a <video> or null.
  constructor(frames, show, film) {
    this.frames = frames;
    this.show = show;
    this.film = film;
    this.place = 0;
    this.playing = false;
    const gaps = frames.slice(1).map((frame, k) => frame.seconds - frames[k].seconds).sort((a, b) => a - b);
    this.realTime = gaps.length > 0 && gaps[Math.floor(gaps.length / 2)] <= REAL_TIME_GAP_S;
    this.ticks = frames.map((frame, place) => {
      const tick = document.createElement("span");
      if (frame.fit) tick.className = frame.fit.accepted ? "yes" : "no";
      tick.addEventListener("click", () => { this.pause(); this.go(place); });
      return tick;
    });
    $("strip").replaceChildren(...this.ticks);
    $("slider").max = frames.length - 1;
    $("player").hidden = frames.length < 2;
    $("slider").addEventListener("input", () => { this.pause(); this.go(Number($("slider").value)); });
    $("play").addEventListener("click", () => this.toggle());
    $("view").addEventListener("keydown", (event) => {
      if (event.key === " " && frames.length > 1) { event.preventDefault(); this.toggle(); }
    });
    this.onplace = () => {};
  }

  label(place) {
    const { fit, index, seconds } = this.frames[place];
    return [`Frame ${index}`, this.frames.length > 1 ? `${place + 1} of ${this.frames.length}` : null,
      Number.isFinite(seconds) ? `${seconds.toFixed(2)} s` : null,
      fit ? (fit.accepted ? "✓ accepted" : "✕ not accepted: treat with care") : null,
      fit && Number.isFinite(fit.landmark_error_px) ? `landmarks off by ${fit.landmark_error_px.toFixed(1)} px` : null,
      fit && Number.isFinite(fit.psnr_db) ? `colours ${fit.psnr_db.toFixed(1)} dB` : null]
      .filter(Boolean).join(" · ");
  }

  filmSeconds(place, seconds) {
    return this.realTime ? seconds - this.frames[0].seconds : place / SLIDES_PER_S;
  }

  mark(place) {
    this.ticks[this.place].classList.remove("here");
    this.ticks[place].classList.add("here");
    this.place = place;
    $("slider").value = place;
    $("slider").setAttribute("aria-valuetext", this.label(place));
    $("frame-said").textContent = this.label(place);
    this.onplace(place);
  }

  go(place) {
    this.mark(place);
    const { seconds } = this.frames[place];
    this.seekFilm(this.filmSeconds(place, seconds) + 0.001);
    return this.show(place, seconds);
  }

  // One seek at a time: while the film looks for a picture, only the last wish is kept.
  seekFilm(seconds) {
    const { film } = this;
    if (!film || film.readyState === 0) return;
    if (!film.seeking) { film.currentTime = seconds; return; }
    if (this.wish === undefined) {
      film.addEventListener("seeked", () => {
        const wish = this.wish;
        this.wish = undefined;
        if (!this.playing) film.currentTime = wish;
      }, { once: true });
    }
    this.wish = seconds;
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  pause() { this.set(false); }

  set(playing) {
    this.playing = playing;
    $("play").textContent = playing ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    if (this.film && !playing) this.film.pause();
  }

  play() {
    const first = this.frames[0].seconds, last = this.frames.at(-1).seconds;
    const length = this.realTime ? last - first : this.frames.length / SLIDES_PER_S;
    const atEnd = this.place === this.frames.length - 1;
    if (atEnd) this.go(0);
    const began = performance.now() - 1000 * this.filmSeconds(this.place, this.frames[this.place].seconds);
    this.set(true);
    if (this.film) this.film.play().catch(() => {});
    const step = (now) => {
      if (!this.playing) return;
      const at = ((now - began) / 1000) % (length + 0.3); // a breath before it starts again
      const seconds = Math.min(this.realTime ? first + at : this.between(at * SLIDES_PER_S), last);
      let place = this.frames.findLastIndex((frame) => frame.seconds <= seconds + 1e-6);
      if (place < 0) place = 0;
      if (place < this.place && this.film) { this.film.currentTime = 0; this.film.play().catch(() => {}); }
      if (place !== this.place) this.mark(place);
      Promise.resolve(this.show(place, seconds)).then(() => requestAnimationFrame(step));
    };
    requestAnimationFrame(step);
  }

  between(place) {
    const low = Math.min(Math.floor(place), this.frames.length - 1), high = Math.min(low + 1, this.frames.length - 1);
    return this.frames[low].seconds + (place - low) * (this.frames[high].seconds - this.frames[low].seconds);
  }
}
