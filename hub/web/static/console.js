// Live without reload: on a signal the page is fetched again and only what differs is replaced.
"use strict";

const HEARTBEAT_MS = 30000; // relative times grow old even when nothing happens
let running = false;
let again = false;
let stream = null;

function flash(row) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--changed");
  row.animate({ backgroundColor: [colour, "transparent"] }, { duration: 2500, easing: "ease-out" });
}

// The row itself stays, so that its flash is not cut off by the next signal.
function fill(row, from) {
  for (const { name, value } of from.attributes) row.setAttribute(name, value);
  row.replaceChildren(...[...from.childNodes].map((node) => document.importNode(node, true)));
}

function patchRows(old, fresh) {
  const byKey = new Map([...old.children].map((row) => [row.dataset.key, row]));
  let place = old.firstElementChild;
  for (const from of fresh.children) {
    const mine = byKey.get(from.dataset.key) ?? document.importNode(from, true);
    const isNew = !byKey.delete(from.dataset.key);
    const changed = isNew || mine.dataset.v !== from.dataset.v;
    if (!mine.isEqualNode(from)) fill(mine, from);
    if (mine === place) place = place.nextElementSibling;
    else old.insertBefore(mine, place);
    if (changed) flash(mine);
  }
  for (const gone of byKey.values()) gone.remove();
}

function patch(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const other = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
    if (!other || old.isEqualNode(other)) continue;
    if ("keyed" in old.dataset) patchRows(old, other);
    else old.replaceWith(document.importNode(other, true));
  }
}

// Where the keyboard is, so that it can be put back when its row was replaced.
function whereFocusIs() {
  const at = document.activeElement;
  const row = at && at.closest("[data-live] [data-key]");
  if (!row) return null;
  const live = row.closest("[data-live]").dataset.live;
  return { at, live, key: row.dataset.key, index: [...row.querySelectorAll("a, button")].indexOf(at) };
}

function putFocusBack(was) {
  if (!was || was.at.isConnected) return;
  const rows = document.querySelectorAll(`[data-live="${was.live}"] > [data-key]`);
  const row = [...rows].find((r) => r.dataset.key === was.key);
  if (row) row.querySelectorAll("a, button")[was.index]?.focus({ preventScroll: true });
}

async function refresh() {
  if (running) { again = true; return; }
  if (document.hidden) return;
  running = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const was = whereFocusIs();
      patch(fresh);
      putFocusBack(was);
    }
  } catch {
    // the stream's own state says that the hub is away
  } finally {
    running = false;
    if (again) { again = false; refresh(); }
  }
}

function say(on) {
  const place = document.getElementById("live");
  place.textContent = on ? place.dataset.on : place.dataset.off;
  place.classList.toggle("off", !on);
}

// A browser keeps few connections to one host: a page nobody looks at gives its own back.
function listen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    return;
  }
  if (stream && stream.readyState !== EventSource.CLOSED) return;
  stream = new EventSource("/live");
  stream.addEventListener("open", () => { say(true); refresh(); });
  stream.addEventListener("changed", refresh);
  stream.addEventListener("error", () => say(false));
}

// what stands there is for readers without JavaScript
document.getElementById("live").textContent = "";
document.addEventListener("visibilitychange", listen);
setInterval(() => { listen(); refresh(); }, HEARTBEAT_MS);
listen();

if (navigator.clipboard) {
  document.documentElement.classList.add("can-copy");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const before = button.textContent;
    button.textContent = document.body.dataset.copied;
    setTimeout(() => { button.textContent = before; }, 1500);
  });
}
