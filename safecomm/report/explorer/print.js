const PRINTED = 200;

/**
 * Before printing, replaces the table, which draws only the rows in view, by a plain list.
 * @param {Explorer} explorer
 */
function listenToPrinting(explorer) {
  const place = document.getElementById("printed-answers");
  addEventListener("beforeprint", () => place.replaceChildren(printedList(explorer)));
  addEventListener("afterprint", () => place.replaceChildren());
}

/** Returns the first prompts that pass the filters, harmful ones folded as on the screen. */
function printedList(explorer) {
  const { data, a, b, shown } = explorer;
  const rows = shown.slice(0, PRINTED).map(at => element("tr", {},
    element("td", {}, verdictTag(a.verdict[at])), element("td", {}, b ? verdictTag(b.verdict[at]) : ""),
    element("td", {}, benchmarkOf(data, at)), element("td", {}, promptCell(explorer, at))));
  const heads = [`A: ${a.arm}`, b ? `B: ${b.arm}` : "", "Benchmark", "Prompt"].map(head => element("th", {}, head));
  const more = shown.length > PRINTED ? `The first ${PRINTED} prompts are printed.` : "";
  return element("div", {}, element("table", {}, element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows)), element("p", { class: "soft" }, more));
}
