// Asks how far the sweep is, and shows each new version of its report in place of the one before.
const EVERY = 2000; // milliseconds
const pages = document.getElementById("pages");
const part = name => document.querySelector(`[data-testid=${name}]`);
let shown = "", isLoading = false;

/** @param {{version: string, is_published: boolean, line: string, recent: string[]}} status */
function tell(status) {
  part("status").textContent = status.line;
  document.querySelector("header").classList.remove("lost");
  document.querySelector("details").hidden = status.recent.length === 0;
  part("recent").replaceChildren(...status.recent.map(text => Object.assign(document.createElement("li"), { textContent: text })));
}

/** Loads a version behind the one that is read, and swaps them at the same place of the page. */
function show(version) {
  const before = pages.querySelector("iframe"), coming = document.createElement("iframe");
  const link = before ? before.contentWindow.location.hash : location.hash;
  isLoading = true;
  coming.title = "Report";
  coming.className = "coming";
  coming.addEventListener("load", () => {
    if (before) coming.contentWindow.scrollTo(0, before.contentWindow.scrollY);
    coming.className = "";
    before?.remove();
    [shown, isLoading] = [version, false];
    pages.dataset.version = version;
  }, { once: true });
  coming.src = `report?version=${encodeURIComponent(version)}${link}`;
  pages.append(coming);
}

async function refresh() {
  try {
    const answer = await fetch("status", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const status = await answer.json();
    tell(status);
    const isFirst = shown === "";
    if (status.version !== shown && !isLoading && (isFirst || part("follow").checked)) show(status.version);
  } catch (error) {
    part("status").textContent = `No news from safecomm view: ${error.message || "it has ended"}`;
    document.querySelector("header").classList.add("lost");
  }
  setTimeout(refresh, EVERY);
}
refresh();
