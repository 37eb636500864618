// Entry lines: docs/FORMAT.md, section 2. They are taken apart as text, since their numbers and repeated keys must be
// seen as they are.

const maxLine = 64 << 20;
const maxDepth = 160;

// stringEnd returns the index after the string that begins at i; -1 if it does not end.
function stringEnd(text, i) {
  for (let end = text.indexOf('"', i + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let back = end;
    while (back > i + 1 && text[back - 1] === "\\") back--;
    if ((end - back) % 2 === 0) return end + 1;
  }
  return -1;
}

// valueEnd returns the index after the JSON value that begins at i. It is strict about structure (there is no white space)
// and lenient about what stands inside strings and numbers. It throws where there is no value.
function valueEnd(text, i) {
  const open = [];
  const bad = () => {
    throw new Error(`character ${i}: not JSON as the format has it`);
  };
  const skipString = () => {
    if (text[i] !== '"') bad();
    const end = stringEnd(text, i);
    if (end < 0) bad();
    i = end;
  };
  const skipKey = () => {
    skipString();
    if (text[i++] !== ":") bad();
  };
  for (;;) {
    const c = text[i];
    if (c === '"') {
      skipString();
    } else if (c === "{" || c === "[") {
      if (open.length === maxDepth) throw new Error("nested too deep");
      const close = c === "{" ? "}" : "]";
      i++;
      if (text[i] === close) {
        i++;
      } else {
        open.push(close);
        if (c === "{") skipKey();
        continue;
      }
    } else {
      const literal = /(?:[-0-9][-+.eE0-9]*|true|false|null)/y;
      literal.lastIndex = i;
      const m = literal.exec(text);
      if (!m) bad();
      i += m[0].length;
    }
    // A value has ended; close what it ends.
    for (;;) {
      if (open.length === 0) return i;
      const c = text[i++];
      if (c === ",") {
        if (open.at(-1) === "}") skipKey();
        break;
      }
      if (c !== open.pop()) bad();
    }
  }
}

// members lists the keys (decoded) and values (as they stand) of an object that valueEnd has passed over.
function members(object) {
  const all = [];
  for (let i = 1; i < object.length && object[i] !== "}"; ) {
    const keyEnd = stringEnd(object, i);
    const end = valueEnd(object, keyEnd + 1);
    all.push([textOf(object.slice(i, keyEnd)), object.slice(keyEnd + 1, end)]);
    i = object[end] === "," ? end + 1 : end;
  }
  return all;
}

// textOf is what a JSON string says; its raw text if it is none.
function textOf(raw) {
  try {
    const value = JSON.parse(raw);
    if (typeof value === "string") return value;
  } catch {
    // shown as it stands
  }
  return raw;
}

function parseEntry(bytes) {
  if (bytes.length > maxLine) throw new Error("the entry is too long");
  // Where the bytes are no UTF-8, U+FFFD takes their place; structure is ASCII and stays what it is.
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  const r = new Reader(text);
  const value = () => {
    const from = r.i;
    r.i = valueEnd(text, from);
    return text.slice(from, r.i);
  };
  const object = () => {
    if (!r.at("{")) r.fail("want an object");
    return value();
  };
  const number = () => {
    const n = uint64(r.match(/[0-9]{1,21}/y, "a number"));
    if (n === undefined) r.fail("want a number without leading zeros");
    return n;
  };
  const take = (length, check, what) => {
    const s = text.slice(r.i, r.i + length);
    if (!check(s)) r.fail("want " + what);
    r.i += length;
    return s;
  };
  const e = { text };
  r.want('{"seq":');
  e.seq = number();
  r.want(',"prev":"');
  e.prev = take(64, isHash, "a hash");
  r.want('","received":"');
  e.received = take(30, isTime, "a time");
  r.want('","tag":');
  e.tag = value();
  if (r.has(',"chunk":{"sha256":"')) {
    e.chunk = { sha256: take(64, isHash, "a hash") };
    r.want('","entries":');
    e.chunk.entries = number();
    r.want("}");
  }
  e.redelivered = r.has(',"redelivered":true');
  if (!e.redelivered && r.has(',"event":"')) {
    const end = text.indexOf('"', r.i);
    if (end < 0) r.fail("want the event's name");
    e.event = text.slice(r.i, end);
    r.i = end + 1;
    r.want(',"detail":');
    e.detail = object();
  } else {
    r.want(',"time":"');
    e.time = take(30, isTime, "a time");
    r.want('"');
    if (r.has(',"meta":')) e.meta = object();
    if (r.has(',"group":')) e.group = object();
    r.want(',"record":');
    e.record = object();
  }
  r.want("}");
  if (r.i !== text.length) r.fail("text after the entry's end");
  return e;
}
