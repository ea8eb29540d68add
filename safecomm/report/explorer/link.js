const LINK = "#samples?";

/**
 * Returns what the page's address says of filters and open prompt; empty if it says nothing.
 * @returns {URLSearchParams}
 */
function linked() {
  return new URLSearchParams(location.hash.startsWith(LINK) ? location.hash.slice(LINK.length) : "");
}

/**
 * Puts filters and open prompt into the page's address, so that it can be sent to somebody.
 * @param {Object<string, string|boolean>} values
 */
function keepLink(values) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value) said.set(name, value === true ? "1" : value);
  history.replaceState(null, "", `${LINK}${said}`);
}
