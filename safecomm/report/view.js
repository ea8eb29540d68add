// Asks how far the sweep is, and shows each new version of its report in place of the one before.
const EVERY = 2000, PATIENCE = 120_000; // milliseconds
const pages = document.getElementById("pages");
const part = name => document.querySelector(`[data-testid=${name}]`);
let shown = "";

/** @param {{version: string, line: string, recent: string[], running: string[], fleet: string}} status */
function tell(status) {
  part("status").textContent = status.line;
  document.querySelector("header").classList.remove("lost");
  part("fleet").textContent = status.fleet;
  part("fleet").closest("details").hidden = status.fleet === "";
  for (const list of ["running", "recent"]) {
    part(list).closest("details").hidden = status[list].length === 0;
    part(list).replaceChildren(...status[list].map(text => Object.assign(document.createElement("li"), { textContent: text })));
  }
}

/** Asks the server; fails if it does not answer in time, or with an error. */
async function ask(path, method = "GET") {
  const answer = await fetch(path, { method, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(await answer.text() || `the ${path.split("?")[0]} can't be read`);
  return answer;
}

/** Loads a version behind the one that is read, and swaps them at the same place of the page. */
async function show(version) {
  const address = `report?version=${encodeURIComponent(version)}`;
  await ask(address, "HEAD"); // an error leaves the page that is read
  const before = pages.querySelector("iframe"), coming = document.createElement("iframe");
  coming.title = "Report";
  coming.className = "coming";
  coming.src = address + (before ? before.contentWindow.location.hash : location.hash);
  const loaded = new Promise(done => coming.addEventListener("load", done, { once: true }));
  pages.append(coming);
  await loaded;
  try {
    coming.contentWindow.scrollTo(0, before?.contentWindow.scrollY ?? 0);
  } catch (error) {
    coming.remove(); // the browser shows an error of its own
    throw error;
  }
  coming.className = "";
  before?.remove();
  shown = pages.dataset.version = version;
}

async function refresh() {
  try {
    const status = await (await ask("status")).json();
    tell(status);
    if (status.version !== shown && (shown === "" || part("follow").checked)) await show(status.version);
  } catch (error) {
    part("status").textContent = `No news from safecomm view: ${error.message || "it has ended"}`;
    document.querySelector("header").classList.add("lost");
  }
  setTimeout(refresh, EVERY);
}
refresh();
