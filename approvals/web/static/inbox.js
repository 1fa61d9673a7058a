// Live updates and keyboard shortcuts. Every page works without this file, and nothing here decides a call.
"use strict";

const byId = (id) => document.getElementById(id);
const ownPath = document.body.dataset.self;

// ---- Live parts: the HTML that the server last sent for each, so that typed text and clocks do not look like changes.
const lastSent = new Map();
for (const part of document.querySelectorAll("[data-live]")) lastSent.set(part.id, part.outerHTML);

function showStatus(words, tone) {
  const line = byId("live");
  if (line.textContent !== words) line.textContent = words;
  line.className = `live ${tone}`;
}

function replace(part, fresh) {
  const typed = new Map();
  for (const field of part.querySelectorAll("input:not([type=hidden]), textarea")) typed.set(field.id, field.value);
  part.replaceWith(document.importNode(fresh, true));
  for (const [id, value] of typed) if (byId(id)) byId(id).value = value;
}

function update(page) {
  const focused = document.activeElement?.id;
  for (const [id, before] of lastSent) {
    const fresh = page.getElementById(id);
    if (!fresh || !byId(id) || fresh.outerHTML === before) continue;
    lastSent.set(id, fresh.outerHTML);
    replace(byId(id), fresh);
  }
  if (focused && document.activeElement?.id !== focused) byId(focused)?.focus({ preventScroll: true });
  document.title = page.title;
  byId("icon").href = page.getElementById("icon").getAttribute("href");
  tick();
}

let busy = false;
let again = false;
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(ownPath, { headers: { "Okayed-Refresh": "1" } });
    if (answer.redirected) return endUpdates();
    const before = waiting();
    update(new DOMParser().parseFromString(await answer.text(), "text/html"));
    announce(before, waiting());
  } catch {
    showStatus(LOST, "lost");
  } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

const waiting = () => Number(byId("waiting")?.dataset.count ?? 0);

function announce(before, now) {
  if (now === before) return;
  showStatus(`Live, ${now} waiting`, "on");
  if (now > before && document.hidden && window.Notification?.permission === "granted") {
    new Notification("Okayed", { body: `${now} call${now === 1 ? "" : "s"} waiting`, tag: "okayed" });
  }
}

// ---- The stream only signals a change. One tab holds it and tells the others, because browsers allow few connections
// to one host, and a tab per call would use them up.
const LOST = "Connection lost. Retrying…";
const tabs = new BroadcastChannel("okayed");
let stream;
let retry;

const HANDLERS = {
  inbox: () => { showStatus("Live", "on"); refresh(); },
  live: () => showStatus("Live", "on"),
  lost: () => showStatus(LOST, "lost"),
  who: () => stream?.readyState === EventSource.OPEN && tabs.postMessage("live"),
};
tabs.addEventListener("message", (event) => HANDLERS[event.data]());

function broadcast(word) {
  HANDLERS[word]();
  tabs.postMessage(word);
}

function connect() {
  stream = new EventSource("/api/v1/events");
  stream.addEventListener("open", () => broadcast("live"));
  stream.addEventListener("inbox", () => broadcast("inbox"));
  stream.addEventListener("error", () => {
    broadcast("lost");
    refresh();
    if (stream.readyState === EventSource.CLOSED) retry = setTimeout(connect, 5000);
  });
}

function follow() {
  if (!navigator.locks) return connect();
  tabs.postMessage("who");
  navigator.locks.request("okayed", () => new Promise(connect));
}

function endUpdates() {
  stream?.close();
  clearTimeout(retry);
  showStatus("Signed out. Reload the page to sign in.", "lost");
}

// ---- Clocks.
function tick() {
  for (const clock of document.querySelectorAll("time[data-until]")) {
    const left = Math.max(0, Math.ceil((Date.parse(clock.dateTime) - Date.now()) / 1000));
    const pad = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(left / 3600);
    const rest = `${pad(Math.floor((left % 3600) / 60))}:${pad(left % 60)}`;
    clock.textContent = hours ? `${hours}:${rest}` : rest;
    clock.classList.toggle("soon", left < 60);
  }
}

// ---- Keyboard shortcuts: they move and focus; only a button decides.
const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent);

function move(step) {
  const all = rows();
  const at = all.findIndex((row) => row === document.activeElement || row.ariaCurrent === "true");
  const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1);
  all[next]?.focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  a: () => byId("approve-button")?.focus(),
  d: () => byId("deny-reason")?.focus(),
  "/": () => (byId("search") ? byId("search").focus() : location.assign("/history#search")),
  "?": () => byId("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || localStorage.getItem("keys") === "off") return;
  if (event.target.closest("input, textarea, select, dialog") || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

function prepareKeys() {
  const off = byId("keys-off");
  off.checked = localStorage.getItem("keys") === "off";
  off.addEventListener("change", () => localStorage.setItem("keys", off.checked ? "off" : "on"));
  byId("help").hidden = false;
  byId("help").addEventListener("click", () => byId("keys").showModal());
  if (location.hash === "#search") byId("search")?.focus();
}

function prepareNotifications() {
  const ask = byId("notify");
  if (!window.isSecureContext || window.Notification?.permission !== "default") return;
  ask.hidden = false;
  ask.addEventListener("click", async () => {
    await Notification.requestPermission();
    ask.hidden = true;
  });
}

prepareKeys();
prepareNotifications();
tick();
setInterval(tick, 1000);
setInterval(refresh, 60000); // in case a signal was lost
follow();
