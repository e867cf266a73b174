/**
 * An instruction as a user writes it -> the text that a tokenizer reads: sam3i_edge/pipeline/instruction.py, held to it
 * by tests/web/test_text.py. ftfy's repair of wrong encodings alone is left out.
 */
import {InstructionError} from "./errors.js";
import tables from "./text_tables.json" with {type: "json"};

const MAX_WORDS = 2_000;
const MAX_CHARACTERS = 10_000;

// Python's \s and \w; JavaScript's differ.
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORD = "\\p{L}\\p{N}_";

const BLANKS = new RegExp(`[${SPACE}]+`, "gu");
const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;
const STRICT_REFERENCE = /&#?[0-9A-Za-z]{1,24};/g;
// What Windows-1252 means by the bytes 0x80 to 0x9f; five of them it leaves.
const WINDOWS =
  "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";
const LIGATURES: Record<string, string> = {
  "\u0132": "IJ", "\u0133": "ij", "\u0149": "\u02bcn", "\u01f1": "DZ", "\u01f2": "Dz", "\u01f3": "dz",
  "\u01c4": "D\u017d", "\u01c5": "D\u017e", "\u01c6": "d\u017e", "\u01c7": "LJ", "\u01c8": "Lj", "\u01c9": "lj",
  "\u01ca": "NJ", "\u01cb": "Nj", "\u01cc": "nj", "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi",
  "\ufb04": "ffl", "\ufb05": "\u017ft", "\ufb06": "st",
};
const LIGATURE = new RegExp(`[${Object.keys(LIGATURES).join("")}]`, "g");
const CONTROL = /[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

const QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb';
const DASHES = "\u2012\u2013\u2014\u2015\u2212";
const HYPHENS = /[\u2010\u2011\u00ad]/g;
const APOSTROPHES = /[\u2018\u2019\u201b\u2032`]/g;
const AROUND_WORDS = new RegExp(
  `[${QUOTES}]|(?<![${WORD}])'|'(?![${WORD}])|[${DASHES}]|(?<![^${SPACE}])-+(?![^${SPACE}])`, "gu",
);
const BRACKETED = /^[([{]([^()[\]{}]*)[)\]}]([.?!]?)$/u;
const ENDS = ".?!";
const EDGE_AND_ENDS = ",;:\u2026*_~-'\u2022 " + ENDS;

const entities: Record<string, string> = tables.entities;
const shouted: Record<string, string> = tables.shouted;

const has = (table: Record<string, string>, name: string) => Object.hasOwn(table, name);
const joined = (text: string) => text.replace(BLANKS, " ").replace(/^ | $/g, "");

function settled(step: (text: string) => string, text: string): string {
  for (let once = step(text); once !== text; once = step(text)) text = once;
  return text;
}

function numbered(code: number): string {
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  if (code === 0x0d) return "\r";
  if (code >= 0x80 && code <= 0x9f) return WINDOWS[code - 0x80]!;
  const missing = code <= 8 || code === 0x0b || (code >= 0x0e && code <= 0x1f) || code === 0x7f ||
    (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
  return missing ? "" : String.fromCodePoint(code);
}

/** Python's html.unescape. */
function unescape(text: string): string {
  return text.replace(REFERENCE, (whole, name: string) => {
    if (name[0] === "#") {
      const digits = name.slice(1).replace(/;$/, "");
      return numbered(/^[xX]/.test(digits) ? parseInt(digits.slice(1), 16) : parseInt(digits, 10));
    }
    if (has(entities, name)) return entities[name]!;
    // The longest beginning that is a name, as in "&notit"; from two letters on.
    for (let used = name.length - 1; used > 1; used--) {
      if (has(entities, name.slice(0, used))) return entities[name.slice(0, used)] + name.slice(used);
    }
    return whole;
  });
}

/** ftfy's own unescaping: what ends in a semicolon alone, and names in capitals too. */
function unescapeStrictly(text: string): string {
  return text.replace(STRICT_REFERENCE, (whole) => {
    if (whole[1] === "#") {
      const found = unescape(whole);
      return found.includes(";") ? whole : found;
    }
    const name = whole.slice(1);
    return has(entities, name) ? entities[name]! : has(shouted, name) ? shouted[name]! : whole;
  });
}

/** The steps of ftfy that look at a character or two, in its order. */
function fixCharacters(text: string): string {
  return text
    .replace(/[\x80-\x9f]/g, (byte) => WINDOWS[byte.charCodeAt(0) - 0x80]!)
    .replace(LIGATURE, (letter) => LIGATURES[letter]!)
    .replace(/\u3000/g, " ")
    .replace(/[\uff01-\uffef]/g, (wide) => wide.normalize("NFKC"))
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/\r\n|[\r\u2028\u2029\x85]/g, "\n")
    .replace(/\x1b\[[\p{Nd};]*[a-zA-Z]/gu, "") // a terminal's colour
    .replace(CONTROL, "")
    .normalize("NFC");
}

/** ftfy.fix_text without the repair of wrong encodings. */
function fixText(text: string): string {
  let escaped = true; // until the first "<", after which entities may be meant
  return text.replace(/[^\n]*\n|[^\n]+/g, (line) => {
    escaped &&= !line.includes("<");
    const unescaping = escaped;
    return settled((part) => fixCharacters(unescaping ? unescapeStrictly(part) : part), line);
  });
}

function cleanOnce(text: string): string {
  const fixed = /^[\x20-\x7e]*$/.test(text) ? text : fixText(text);
  const unescaped = fixed.includes("<") ? fixed : unescape(fixed);
  return joined(unescape(unescape(unescaped))).toLowerCase();
}

/** The text as the official code cleans it: one line, single blanks, lower case. A cleaned text is clean. */
export function clean(text: string): string {
  return settled(cleanOnce, text);
}

/**
 * The cleaned instruction.
 *
 * @throws InstructionError - it is blank, has over 10,000 characters or 2,000 words, or holds half of a surrogate pair.
 */
export function checkInstruction(text: string): string {
  if (typeof text !== "string") throw new TypeError(`the instruction must be a string, got ${typeof text}`);
  const count = [...text].length;
  const refuse = (found: number, what: string, most: number) => new InstructionError(
    `the instruction has ${found.toLocaleString("en")} ${what}, at most ${most.toLocaleString("en")} are allowed: ` +
    "describe the target in one sentence",
  );
  if (count > MAX_CHARACTERS) throw refuse(count, "characters", MAX_CHARACTERS);
  const cleaned = clean(text);
  if (!cleaned) {
    throw new InstructionError("the instruction is empty: describe what to segment, as in 'the red star'");
  }
  const words = cleaned.split(" ").length;
  if (words > MAX_WORDS) throw refuse(words, "words", MAX_WORDS);
  if (/\p{Surrogate}/u.test(text)) {
    throw new InstructionError("the instruction holds a lone surrogate, which is no character: pass valid text");
  }
  return cleaned;
}

/** A cleaned text without the punctuation around its words, as this project's own tokenizers read it. */
export function plain(text: string): string {
  return settled(plainOnce, text);
}

function plainOnce(text: string): string {
  const words = joined(text.replace(HYPHENS, "-").replace(APOSTROPHES, "'").replace(AROUND_WORDS, " "));
  let first = 0, last = words.length;
  while (first < last && EDGE_AND_ENDS.includes(words[first]!)) first++;
  while (last > first && EDGE_AND_ENDS.includes(words[last - 1]!)) last--;
  if (first === last) return text;
  const bare = words.slice(first, last);
  const end = [...words.slice(last)].find((character) => ENDS.includes(character)) ?? "";
  const bracketed = BRACKETED.exec(bare + end);
  if (bracketed && joined(bracketed[1]!)) return bracketed[1]! + bracketed[2]!;
  return bare.replace(new RegExp(`[${SPACE}]+([,;:.?!])`, "gu"), "$1") + end;
}
