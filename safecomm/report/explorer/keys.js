const STEPS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
const TYPED = "input:not([type=checkbox]), select, textarea";

/**
 * Lets the keyboard move through the prompts, open and mark them.
 * @param {Explorer} explorer
 */
function listenToKeys(explorer) {
  const section = document.getElementById("samples");
  document.addEventListener("keydown", event => {
    const inside = section.contains(event.target) || event.target === document.body && explorer.at !== null;
    if (!inside || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return explorer.focusRow();
    if (event.target.matches(TYPED)) return;
    if (pressed(explorer, event)) event.preventDefault();
  });
}

/**
 * Does what a key says; returns whether it says anything.
 * @param {Explorer} explorer
 * @param {KeyboardEvent} event
 */
function pressed(explorer, event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const mark = Object.keys(MARKS).find(name => MARKS[name] === key);
  if (key in STEPS && movesRows(event, key)) explorer.move(STEPS[key]);
  else if (key === "Enter" && !event.target.closest("button, summary, a")) explorer.open();
  else if (mark) explorer.mark(explorer.side, mark);
  else if (key === "a" || key === "b") explorer.choose(key.toUpperCase());
  else if (key === "r") document.querySelector(".answer.is-active input")?.focus();
  else if (key === "/") document.querySelector("#filters [name=search]").focus();
  else return false;
  return true;
}

/** Long answers scroll with the arrows; letters always move to another prompt. */
function movesRows(event, key) {
  return key.length === 1 || Boolean(event.target.closest("#answers-table"));
}
