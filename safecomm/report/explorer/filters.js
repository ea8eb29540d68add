/**
 * What the form says; empty texts filter nothing.
 * @typedef {{a: string, b: string, verdict: string, verdictB: string, benchmark: string, attack: string,
 *            category: string, search: string, flipped: boolean, disagree: boolean}} Filters
 */
const NO_ATTACK = "none";

/**
 * Returns the prompts that pass the filters, in their order.
 * @param {Answers} data
 * @param {Filters} filters
 * @returns {number[]}
 */
function matching(data, filters) {
  const conditions = conditionsOf(data, filters);
  const found = [];
  for (let at = 0; at < data.prompts.id.length; at++) {
    if (conditions.every(holds => holds(at))) found.push(at);
  }
  return found;
}

/**
 * Returns the conditions on a prompt, the slow one last.
 * @param {Answers} data
 * @param {Filters} filters
 * @returns {((at: number) => boolean)[]}
 */
function conditionsOf(data, filters) {
  const a = armNamed(data, filters.a), b = armNamed(data, filters.b), prompts = data.prompts;
  const conditions = [at => a.verdict[at] !== null || Boolean(b) && b.verdict[at] !== null];
  if (filters.verdict) conditions.push(at => a.verdict[at] === filters.verdict);
  if (filters.verdictB && b) conditions.push(at => b.verdict[at] === filters.verdictB);
  if (filters.benchmark) conditions.push(at => prompts.benchmark[at] === filters.benchmark);
  if (filters.category) conditions.push(at => prompts.category[at] === filters.category);
  if (filters.attack) conditions.push(at => (prompts.attack[at] || NO_ATTACK) === filters.attack);
  if (filters.flipped) conditions.push(at => isFlipped(data, a, b, at));
  if (filters.disagree) conditions.push(at => isDisputed(a, at) || isDisputed(b, at));
  if (filters.search) conditions.push(contains(data, a, b, filters.search));
  return conditions;
}

/**
 * Returns whether a prompt or one of the two answers contains a text, in any case.
 * @param {Answers} data
 * @param {Arm} a
 * @param {Arm|undefined} b
 * @param {string} text
 * @returns {(at: number) => boolean}
 */
function contains(data, a, b, text) {
  const pattern = new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
  const has = value => Boolean(value) && pattern.test(value);
  return at => has(promptOf(data, a, at)) || has(a.response[at]) || Boolean(b) && has(b.response[at]);
}

/**
 * Says how many prompts are shown, and which way their verdicts flipped.
 * @param {Answers} data
 * @param {Filters} filters
 * @param {number[]} shown
 */
function countInWords(data, filters, shown) {
  const a = armNamed(data, filters.a), b = armNamed(data, filters.b);
  const all = data.prompts.id.length;
  const listed = `${number(shown.length)} of ${number(all)} prompt${all === 1 ? "" : "s"}`;
  const ways = waysOf(data, a, b, shown);
  if (!b) return listed;
  const details = [...ways].map(([way, count]) => `${number(count)} ${way}`).join(", ");
  return `${listed}; ${number(flips(ways))} flipped from A to B${details ? `: ${details}` : ""}`;
}

/**
 * Counts the flips by their way, e.g. `unsafe → safe`.
 * @returns {Map<string, number>}
 */
function waysOf(data, a, b, shown) {
  const ways = new Map();
  for (const at of shown) {
    if (!isFlipped(data, a, b, at)) continue;
    const way = `${a.verdict[at]} → ${b.verdict[at]}`;
    ways.set(way, (ways.get(way) ?? 0) + 1);
  }
  return ways;
}

/** @param {Map<string, number>} ways */
function flips(ways) {
  return [...ways.values()].reduce((sum, count) => sum + count, 0);
}

/** @param {number} value */
function number(value) {
  return value.toLocaleString("en-US");
}
