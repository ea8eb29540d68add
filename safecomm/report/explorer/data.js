/**
 * The answers, by column: entry i of every list belongs to prompt i.
 * @typedef {object} Arm
 * @property {string} arm - its name
 * @property {string} settings - its settings, in words
 * @property {string} evaluation - the key by which labels name its answers
 * @property {(number|null)[]} row - the answers' places in the evaluation; null without an answer
 * @property {(string|null)[]} response
 * @property {(string|null)[]} verdict
 * @property {string[][]} others - the other judges' verdicts, judge by judge
 * @property {number[]} tried - prompts whose answer stands for several tries
 * @property {Object<string, string>} texts - prompt -> its text, where this arm was asked another one
 *
 * @typedef {object} Answers
 * @property {string} run - the sweep's name
 * @property {string} key - names the marks of these answers in the browser's storage
 * @property {string[]} judges - the deciding judge and the others
 * @property {string} harmful - the kind of harmful prompts
 * @property {string[]} scored - the verdicts that count
 * @property {(string|null)[]} shown - the arms to compare first
 * @property {{id: string[], kind: string[], benchmark: string[], attack: string[], category: string[], text: string[]}} prompts
 * @property {Arm[]} arms
 */

/**
 * Returns the page's answers.
 * @returns {Promise<Answers>}
 */
async function readAnswers() {
  const inside = document.getElementById("packed-answers");
  const packed = inside ? inside.textContent : window.packedAnswers;
  if (!packed) throw new Error("The file report.answers.js is missing. Keep it beside report.html.");
  const stream = new Blob([bytesOf(packed.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/**
 * Decodes Base64.
 * @param {string} text
 * @returns {Uint8Array}
 */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/**
 * @param {Answers} data
 * @param {string} name
 * @returns {Arm|undefined}
 */
function armNamed(data, name) {
  return data.arms.find(arm => arm.arm === name);
}

/**
 * @param {Answers} data
 * @param {number} at - a prompt
 */
function isHarmful(data, at) {
  return data.prompts.kind[at] === data.harmful;
}

/**
 * Returns the prompt as an arm was asked it.
 * @param {Answers} data
 * @param {Arm} arm
 * @param {number} at - a prompt
 */
function promptOf(data, arm, at) {
  return arm.texts[at] ?? data.prompts.text[at];
}

/**
 * Tells whether both arms' answers have a verdict, and another one; as `is_flipped` in report/samples.py.
 * @param {Answers} data
 * @param {Arm} a
 * @param {Arm|undefined} b
 * @param {number} at - a prompt
 */
function isFlipped(data, a, b, at) {
  if (!b) return false;
  const first = a.verdict[at], second = b.verdict[at];
  return first !== second && data.scored.includes(first) && data.scored.includes(second);
}

/**
 * Tells whether the judges disagree on an arm's answer.
 * @param {Arm|undefined} arm
 * @param {number} at - a prompt
 */
function isDisputed(arm, at) {
  return Boolean(arm) && arm.others.some(judge => judge[at] && judge[at] !== arm.verdict[at]);
}

/**
 * Returns the name by which labels know an answer; as `with_labels` in report/human_labels.py.
 * @param {Arm} arm
 * @param {number} at - a prompt
 */
function answerId(arm, at) {
  return `${arm.evaluation}:${arm.row[at]}`;
}

/**
 * Returns a benchmark's name with its attack.
 * @param {Answers} data
 * @param {number} at - a prompt
 */
function benchmarkOf(data, at) {
  const { benchmark, attack } = data.prompts;
  return attack[at] ? `${benchmark[at]}+${attack[at]}` : benchmark[at];
}
