/** The level of an instruction: sam3i_edge/levels.py, which says why, and holds this to itself in tests/web. */
import tables from "./text_tables.json" with {type: "json"};

export type Level = "concept" | "simple" | "complex";

export const LEVELS: readonly Level[] = ["concept", "simple", "complex"];

const MOST_WORDS = 64; // the head stands at the beginning

const words = Object.fromEntries(
  Object.entries(tables.words).map(([name, list]) => [name, new Set(list.split(" "))]),
) as Record<keyof typeof tables.words, Set<string>>;
const REQUEST = new RegExp(`^(?:${tables.patterns.REQUEST})`);
const SEEN_CLAUSE = new RegExp(`^(?:${tables.patterns.SEEN_CLAUSE})`);
const PURPOSE = new RegExp(tables.patterns.PURPOSE);

const isSuperlative = (word: string) =>
  /(?:est|most)$/.test(word) && word.length > 4 && !words.NOT_SUPERLATIVE.has(word) && word !== "almost";

/** Whether the word is no longer part of the phrase that names the target. */
function endsHead(sentence: string[], index: number): boolean {
  const word = sentence[index]!, after = sentence[index + 1], before = sentence[index - 1];
  if (after === "than" || (before !== undefined && words.PLACEHOLDERS.has(before) && word.endsWith("ed"))) return true;
  if (word === "left" || word === "right") return after === "of";
  if (word === "that" || word === "next") return index > 0 && (word === "that" || after === "to");
  if (word === "the") return before !== undefined && (before === "one" || !words.QUANTIFIERS.has(before));
  if (word === "nearest" || word === "closest") return after === undefined || after === "to" || after === "the";
  return words.PREPOSITIONS.has(word) || words.CLAUSES.has(word) || words.RELATION_VERBS.has(word);
}

function namesNothing(sentence: string[]): boolean {
  let end = sentence.findIndex((_, index) => endsHead(sentence, index));
  if (end < 0) end = sentence.length;
  const rest = sentence.slice(end);
  const content = sentence.slice(0, end).filter((word) =>
    !words.ARTICLES.has(word) && !words.ORDINALS.has(word) && !words.POSITIONS.has(word) &&
    (word === "one" || !words.QUANTIFIERS.has(word)) && !isSuperlative(word));
  const of = rest.length > 1 && rest[0] === "of";
  if (!content.length || (content.length === 1 && content[0] === "one")) return !of || namesNothing(rest.slice(1));
  const first = content[0]!, last = content.at(-1)!;
  if (words.WEAK_PLACEHOLDERS.has(last)) {
    const named = [...new Set(content)].filter((word) => !words.VISIBLE.has(word));
    if (named.length > 1 || (/^(?:piec|pair)/.test(last) && of && !words.ARTICLES.has(rest[1]!))) return false;
  }
  if (content.some((word) => word.endsWith("-shaped"))) return false;
  const tail = rest.join(" ");
  const seen = content.some((word) => words.VISIBLE.has(word));
  if (last !== "one" && last !== "ones" && seen && SEEN_CLAUSE.test(tail)) return false;
  if (words.PLACEHOLDERS.has(last)) return true;
  if (words.PLACEHOLDERS.has(first) && !words.WEAK_PLACEHOLDERS.has(first) && first !== "one") return true;
  return words.CLASS_WORDS.has(last) && PURPOSE.test(tail);
}

function narrows(sentence: string[]): boolean {
  if (sentence.length > tables.maxConceptWords || words.ARTICLES.has(sentence[0]!)) return true;
  return sentence.some((word, index) =>
    (index > 0 && word === "the") || words.NARROWING.has(word) || isSuperlative(word) ||
    (index > 0 && index + 1 < sentence.length && words.RELATION_VERBS.has(word)));
}

/** The level of an instruction, by grammar alone; "concept" for a blank one. */
export function route(instruction: string): Level {
  const lower = instruction.toLowerCase().replace(/\u2019/g, "'");
  // Letters beyond ASCII become "_": no list has a word with one, and \w and \b here know ASCII alone.
  let sentence = (lower.match(/[\p{L}\p{N}_]+(?:[-'][\p{L}\p{N}_]+)*/gu) ?? []).slice(0, MOST_WORDS)
    .map((word) => word.replace(/[^\x00-\x7f]/gu, "_"));
  const request = REQUEST.exec(sentence.join(" "));
  if (request) sentence = sentence.slice(request[0].split(" ").filter(Boolean).length);
  if (sentence[0] === "a" || sentence[0] === "an") sentence = sentence.slice(1);
  if (!sentence.length) return "concept";
  if (words.QUESTIONS.has(sentence[0]!) || sentence.includes("what") || sentence[0] === "where") return "complex";
  if (sentence[0] === "which") return namesNothing(sentence.slice(1)) ? "complex" : "simple";
  if (namesNothing(sentence)) return "complex";
  return request || narrows(sentence) ? "simple" : "concept";
}
