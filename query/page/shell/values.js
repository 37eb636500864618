// Values of an entry: docs/FORMAT.md, section 3. They are taken apart as text, since their numbers and the spelling of their
// strings must be seen as they are.

// maxDepth is how deep a value may be nested: 128 levels of a record, and the one that a group puts around them.
const maxDepth = 129;

const escapeMark = /\\(?:["\\btnfr]|u00(?:0[0-7bef]|1[0-9a-f]))/y;
const scalar = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-][1-9][0-9]*)?|true|false|null/y;

// strictString returns the index after the string that begins at i. It throws if that is not a string in its one spelling.
function strictString(text, i) {
  const bad = (at, why) => {
    throw new Error(`character ${at}: ${why}`);
  };
  if (text[i] !== '"') bad(i, "want a string");
  for (let at = i + 1; ; at++) {
    const c = text.charCodeAt(at);
    if (c === 0x22) return at + 1;
    if (c === 0x5c) {
      escapeMark.lastIndex = at;
      if (!escapeMark.test(text)) bad(at, "the string is not in its one spelling");
      at = escapeMark.lastIndex - 1;
    } else if (!(c >= 0x20)) {
      bad(at, "the string does not end, or has a control character"); // c is NaN at the text's end
    }
  }
}

// strictValue returns the index after the value that begins at i. It throws if what stands there is no JSON, is not in its one
// spelling, or repeats a key: so that no two readers take two meanings from it.
function strictValue(text, i) {
  const open = []; // of each level the bracket that closes it, and of an object its keys so far
  const bad = (why) => {
    throw new Error(`character ${i}: ${why}`);
  };
  const key = (level) => {
    const end = strictString(text, i);
    level.keys ??= new Keys();
    if (!level.keys.add(text.slice(i, end))) bad("the key is repeated");
    i = end;
    if (text[i++] !== ":") bad("not JSON as the format has it");
  };
  for (;;) {
    const c = text[i];
    if (c === '"') {
      i = strictString(text, i);
    } else if (c === "{" || c === "[") {
      if (open.length === maxDepth) bad("nested too deep");
      const close = c === "{" ? "}" : "]";
      i++;
      if (text[i] === close) {
        i++;
      } else {
        const level = { close };
        open.push(level);
        if (c === "{") key(level);
        continue;
      }
    } else {
      scalar.lastIndex = i;
      if (!scalar.test(text)) bad("not JSON as the format has it");
      i = scalar.lastIndex;
    }
    // A value has ended; close what it ends.
    for (;;) {
      if (open.length === 0) return i;
      const level = open.at(-1);
      const c = text[i++];
      if (c === ",") {
        if (level.close === "}") key(level);
        break;
      }
      if (c !== level.close) bad("not JSON as the format has it");
      open.pop();
    }
  }
}

const keyPart = 1000;

// Keys are the keys of one object as they are spelled, of which each has but one spelling.
class Keys {
  #all = new Set();
  #parts = new Map();

  // add returns whether the key is new. A long one is looked up in parts, each together with the number of what stands before
  // it: of very long strings some browsers' hash is but the length, and then a set compares each with each.
  add(key) {
    let before = "", from = 0;
    for (; key.length - from > keyPart; from += keyPart) {
      const part = before + key.slice(from, from + keyPart);
      let number = this.#parts.get(part);
      if (number === undefined) this.#parts.set(part, (number = this.#parts.size));
      before = number + ":"; // unlike a key, which begins with a quotation mark
    }
    const size = this.#all.size;
    this.#all.add(before + key.slice(from));
    return this.#all.size > size;
  }
}

// What follows is for text that strictValue has passed over.

// stringEnd returns the index after the string that begins at i; -1 if it does not end.
function stringEnd(text, i) {
  for (let end = text.indexOf('"', i + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let back = end;
    while (back > i + 1 && text[back - 1] === "\\") back--;
    if ((end - back) % 2 === 0) return end + 1;
  }
  return -1;
}

// valueEnd returns the index after the value that begins at i.
function valueEnd(text, i) {
  for (let depth = 0; ; ) {
    const c = text[i];
    if (c === '"') {
      i = stringEnd(text, i);
    } else {
      if (c === "{" || c === "[") depth++;
      if (c === "}" || c === "]") depth--;
      i++;
    }
    if (depth === 0 && (i === text.length || ",]}".includes(text[i]))) return i;
  }
}

// members lists the keys (decoded) and values (as they stand) of an object, as far as the keys are wanted.
function members(object, wanted) {
  const all = [];
  for (let i = 1; i < object.length && object[i] !== "}"; ) {
    const keyEnd = stringEnd(object, i);
    const end = valueEnd(object, keyEnd + 1);
    const spelled = object.slice(i, keyEnd);
    const key = spelled.includes("\\") ? JSON.parse(spelled) : spelled.slice(1, -1); // few keys need the time
    if (wanted(key)) all.push([key, object.slice(keyEnd + 1, end)]);
    i = object[end] === "," ? end + 1 : end;
  }
  return all;
}
