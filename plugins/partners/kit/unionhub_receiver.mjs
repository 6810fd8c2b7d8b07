// Receives events from a union hub: verifies, remembers, hands on. One file, no packages, Node 18+.
//
//   const receiver = new Receiver(["whsec_..."], new Ids("ids.txt"));
//   const [verdict, id] = receiver.check(request.headers, body);   // body: a Buffer, before any JSON parser
//   if (verdict === "new") { /* store the event, then: */ receiver.remember(id); }
//   // "new" and "repeat": answer 200; "refused": answer 401
//
// A try-out server: node unionhub_receiver.mjs --port 8090 --keys keys.txt --ids ids.txt   (one key a line)
// Keys are whsec_... (shared secret, v1) or whpk_... (the hub's public key, v1a).

import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

const TOLERANCE_S = 300;
const KEEP_IDS_S = 30 * 86400;
const BODY_BYTES = 2 * 1024 * 1024;
const ID = /^[A-Za-z0-9_-]{1,128}$/;
const TIMESTAMP = /^[0-9]{1,12}$/;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;
// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410).
const ED25519 = Buffer.from("302a300506032b6570032100", "hex");

// Ids that were done, in a file, so that a restart forgets none. Only one process may use the file.
export class Ids {
  constructor(path) {
    this.known = new Map();
    const since = Date.now() / 1000 - KEEP_IDS_S;
    for (const line of existsSync(path) ? readFileSync(path, "latin1").split("\n") : []) {
      const [at, id] = line.split(" ");
      if (id && TIMESTAMP.test(at) && Number(at) > since) this.known.set(id, at);
    }
    this.file = openSync(path, "w");
    for (const [id, at] of this.known) writeSync(this.file, `${at} ${id}\n`);
  }

  has(id) {
    return this.known.has(id);
  }

  add(id) {
    const at = String(Math.floor(Date.now() / 1000));
    this.known.set(id, at);
    writeSync(this.file, `${at} ${id}\n`);
    fsyncSync(this.file);
  }
}

// Checks requests against any of the keys; keep the old key beside the new one while keys are changed.
export class Receiver {
  constructor(keys, ids) {
    this.secrets = keys.filter((key) => key.startsWith("whsec_")).map((key) => decoded(key.slice(6)));
    this.publicKeys = keys
      .filter((key) => key.startsWith("whpk_"))
      .map((key) => Buffer.concat([ED25519, decoded(key.slice(5))]))
      .map((der) => createPublicKey({ key: der, format: "der", type: "spki" }));
    if (!this.secrets.length && !this.publicKeys.length) throw new Error("no key: give whsec_... or whpk_...");
    this.ids = ids;
  }

  // ["new" | "repeat" | "refused", webhook-id]. Never throws for what a request holds. Header names in lower case.
  check(headers, body, now = Date.now() / 1000) {
    const id = String(headers["webhook-id"] ?? "");
    const timestamp = String(headers["webhook-timestamp"] ?? "");
    if (!ID.test(id) || !TIMESTAMP.test(timestamp)) return ["refused", ""];
    if (Math.abs(now - Number(timestamp)) > TOLERANCE_S) return ["refused", ""];
    const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
    if (!this.#isSigned(String(headers["webhook-signature"] ?? ""), signed)) return ["refused", ""];
    return [this.ids.has(id) ? "repeat" : "new", id];
  }

  // Call it once the event is stored: what was not remembered comes as new again.
  remember(id) {
    this.ids.add(id);
  }

  #isSigned(value, signed) {
    const expected = this.secrets.map((secret) => createHmac("sha256", secret).update(signed).digest());
    for (const entry of value.split(" ").slice(0, 8)) {
      const comma = entry.indexOf(",");
      const text = entry.slice(comma + 1);
      if (comma < 0 || !BASE64.test(text)) continue;
      const given = Buffer.from(text, "base64");
      // The kind of our key says the algorithm; timingSafeEqual takes as long for any answer.
      if (entry.startsWith("v1,") && expected.some((each) => given.length === 32 && timingSafeEqual(given, each))) return true;
      if (entry.startsWith("v1a,") && given.length === 64 && this.publicKeys.some((key) => verify(null, signed, key, given)))
        return true;
    }
    return false;
  }
}

function decoded(text) {
  const raw = Buffer.from(text.trim(), "base64");
  if (!BASE64.test(text.trim()) || raw.length < 24) throw new Error("the key is too short or not base64");
  return raw;
}

// -- the try-out server ----------------------------------------------------------------------------

export function serve(port, receiver) {
  const server = createServer((request, response) => {
    const answer = (status, text) => response.writeHead(status, { "Content-Length": text.length }).end(text);
    if (request.method !== "POST") return answer(405, "post events here");
    const pieces = [];
    let size = 0;
    request.on("data", (piece) => {
      size += piece.length;
      if (size <= BODY_BYTES) pieces.push(piece);
    });
    request.on("end", () => {
      if (size > BODY_BYTES) return answer(413, "too large");
      const body = Buffer.concat(pieces);
      const [verdict, id] = receiver.check(request.headers, body);
      if (verdict === "new") {
        console.log(`event ${id} ${body.length} bytes`);
        receiver.remember(id);
      }
      answer(verdict === "refused" ? 401 : 200, verdict);
    });
  });
  server.listen(port, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name, otherwise) => (argv.includes(name) ? argv[argv.indexOf(name) + 1] : otherwise);
  const keys = readFileSync(option("--keys", "keys.txt"), "latin1").split("\n").map((line) => line.trim()).filter(Boolean);
  serve(Number(option("--port", "8090")), new Receiver(keys, new Ids(option("--ids", "ids.txt"))));
}
