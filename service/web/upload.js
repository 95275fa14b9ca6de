// Resumable upload (tus 1.0): in pieces, going on where a connection broke, also after this page was closed and opened again.

import { problemOf, Refused } from "/web/api.js";

const PIECE_BYTES = 4 << 20;
const PATIENCE = 8; // breaks in a row without progress
const TUS = { "Tus-Resumable": "1.0.0" };
const AGAIN = [0, 409, 423, 429, 460, 502, 503, 504];

export class Upload {
  // onprogress(sent, total, waiting): `waiting` while the connection is down.
  constructor(file, onprogress) {
    this.file = file;
    this.onprogress = onprogress;
    this.name = `mononphm upload ${file.name} ${file.size} ${file.lastModified}`;
    this.stopped = false;
  }

  // The upload's id once every byte is there; null if it was stopped.
  async send() {
    let { address, offset } = await this.found();
    this.address = address;
    let breaks = 0;
    while (offset < this.file.size && !this.stopped) {
      this.onprogress(offset, this.file.size, breaks > 0);
      const reached = await this.piece(offset);
      if (this.stopped) break;
      if (reached === null) {
        breaks += 1;
        if (breaks > PATIENCE) throw new Refused({ title: "The connection is down", detail: "Choose the same file again later: it goes on where it stopped." });
        this.onprogress(offset, this.file.size, true);
        await new Promise((then) => setTimeout(then, Math.min(1000 * 2 ** breaks, 15000)));
        offset = (await this.offset(address)) ?? offset;
      } else {
        breaks = 0;
        offset = reached;
      }
    }
    if (this.stopped) return null;
    this.onprogress(offset, this.file.size, false);
    return address.split("/").at(-1);
  }

  stop() {
    this.stopped = true;
    if (this.request) this.request.abort();
    this.forget();
    if (this.address) fetch(this.address, { method: "DELETE", headers: TUS }).catch(() => {});
  }

  forget() { try { localStorage.removeItem(this.name); } catch { /* private window */ } }

  // An earlier attempt at this file, if the server still has it; else a new upload.
  async found() {
    let known = null;
    try { known = localStorage.getItem(this.name); } catch { /* private window */ }
    if (known) {
      const offset = await this.offset(known);
      if (offset !== null) return { address: known, offset };
    }
    const encoded = btoa(Array.from(new TextEncoder().encode(this.file.name), (byte) => String.fromCharCode(byte)).join(""));
    const headers = { ...TUS, "Upload-Length": String(this.file.size), "Upload-Metadata": `filename ${encoded}` };
    let answer;
    try { answer = await fetch("/uploads", { method: "POST", headers }); } catch { throw problemOf(0, ""); }
    if (!answer.ok) throw problemOf(answer.status, await answer.text());
    const address = new URL(answer.headers.get("Location"), location.href).pathname;
    try { localStorage.setItem(this.name, address); } catch { /* private window */ }
    return { address, offset: 0 };
  }

  // Where the server stands; null where it does not say.
  async offset(address) {
    try {
      const answer = await fetch(address, { method: "HEAD", headers: TUS });
      return answer.ok ? Number(answer.headers.get("Upload-Offset")) : null;
    } catch {
      return null;
    }
  }

  // The new offset; null if the connection broke or the server was busy.
  piece(offset) {
    return new Promise((then, otherwise) => {
      const request = new XMLHttpRequest();
      this.request = request;
      request.upload.onprogress = (event) => this.onprogress(offset + event.loaded, this.file.size, false);
      request.onload = () => {
        if (request.status === 204) then(Number(request.getResponseHeader("Upload-Offset")));
        else if (AGAIN.includes(request.status)) then(null);
        else otherwise(problemOf(request.status, request.responseText));
      };
      request.onerror = () => then(null);
      request.onabort = () => then(null);
      request.open("PATCH", this.address);
      for (const [name, value] of Object.entries({ ...TUS, "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" })) {
        request.setRequestHeader(name, value);
      }
      request.send(this.file.slice(offset, offset + PIECE_BYTES));
    });
  }
}
