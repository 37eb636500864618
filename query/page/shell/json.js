// JSON that has one spelling. A reader for it is made from a description of its members: what it takes is exactly what
// Go's encoding/json would write of them, so repeated, unknown and reordered keys, white space, and other spellings of
// strings and numbers are all refused. JSON.parse would let every one of them pass, and round numbers.

const escapes = { "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\" };

function escapeUnit(c) {
  return escapes[c] || "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0");
}

// The spelling of strings in what is signed, and that in this page, which is ASCII only.
const signedSpelling = (s) => '"' + s.replace(/["\\\u0000-\u001f<>&\u2028\u2029]/g, escapeUnit) + '"';
const pageSpelling = (s) => '"' + s.replace(/["\\\u0000-\u001f<>&\u007f-\uffff]/g, escapeUnit) + '"';

class Reader {
  constructor(text, spelling) {
    this.text = text;
    this.spelling = spelling;
    this.i = 0;
  }
  fail(why) {
    throw new Error(`character ${this.i}: ${why}`);
  }
  at(mark) {
    return this.text.startsWith(mark, this.i);
  }
  has(mark) {
    if (!this.at(mark)) return false;
    this.i += mark.length;
    return true;
  }
  want(mark) {
    if (!this.has(mark)) this.fail("want " + mark);
  }
  // match takes what the sticky expression finds here.
  match(expression, what) {
    expression.lastIndex = this.i;
    const m = expression.exec(this.text);
    if (!m) this.fail("want " + what);
    this.i += m[0].length;
    return m[0];
  }
}

function read(type, text, spelling) {
  const r = new Reader(text, spelling);
  const value = type(r);
  if (r.i !== text.length) r.fail("text after its end");
  return value;
}

// Types: functions that take a value off a reader.

function string(r) {
  const end = stringEnd(r.text, r.i);
  if (!r.at('"') || end < 0) r.fail("want a string");
  const raw = r.text.slice(r.i, end);
  const value = JSON.parse(raw);
  if (r.spelling(value) !== raw || /\p{Cs}/u.test(value)) r.fail("the string is not in its one spelling");
  r.i = end;
  return value;
}

// base64 is a string that needs no escapes, however long it is.
function base64(r) {
  r.want('"');
  const end = r.text.indexOf('"', r.i);
  if (end < 0) r.fail("want base64");
  const value = fromBase64(r.text.slice(r.i, end));
  r.i = end + 1;
  return value;
}

function uint(r) {
  const n = uint64(r.match(/[0-9]{1,20}/y, "a number"));
  if (n === undefined) r.fail("want a number from 0 to 2^64-1 in its one spelling");
  return n;
}

function int(r) {
  const text = r.match(/-?[0-9]{1,19}/y, "a number");
  if (!/^(0|-?[1-9][0-9]*)$/.test(text)) r.fail("the number is not in its one spelling");
  const n = BigInt(text);
  if (BigInt.asIntN(64, n) !== n) r.fail("the number is too large");
  return n;
}

function checked(check, what) {
  return (r) => {
    const value = string(r);
    if (!check(value)) r.fail("want " + what);
    return value;
  };
}

const hash = checked(isHash, "a hash");
const time = checked(isTime, "a time");

function nullable(type) {
  return (r) => (r.has("null") ? null : type(r));
}

// array takes null, too: Go writes a list that was never made so.
function array(type, most = Infinity) {
  return (r) => {
    const all = [];
    if (r.has("null")) return all;
    r.want("[");
    if (r.has("]")) return all;
    do {
      if (all.length === most) r.fail(`the list has more than ${most} elements`);
      all.push(type(r));
    } while (r.has(","));
    r.want("]");
    return all;
  };
}

function pair(type) {
  return (r) => {
    r.want("[");
    const first = type(r);
    r.want(",");
    const second = type(r);
    r.want("]");
    return [first, second];
  };
}

// counters is a map from names to numbers, ascending by the names' bytes.
function counters(r) {
  const all = [];
  r.want("{");
  do {
    const name = string(r);
    if (all.length && compareBytes(encoder.encode(all.at(-1)[0]), encoder.encode(name)) >= 0) r.fail("the keys are not in order");
    r.want(":");
    all.push([name, uint(r)]);
  } while (r.has(","));
  r.want("}");
  return all;
}

function compareBytes(a, b) {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

// maybe marks a member that may be left out; optional one that is left out where it is empty, and only there.
function maybe(type) {
  const marked = (r) => type(r);
  marked.leftOut = true;
  return marked;
}

function optional(type) {
  return maybe((r) => {
    const v = type(r);
    if (v === 0n || v === "" || (Array.isArray(v) && v.length === 0)) r.fail("what is empty should be left out");
    return v;
  });
}

function struct(members) {
  return (r) => {
    const value = {};
    let before = "{";
    for (const [name, type] of Object.entries(members)) {
      const mark = before + '"' + name + '":';
      if (type.leftOut && !r.at(mark)) continue;
      r.want(mark);
      value[name] = type(r);
      before = ",";
    }
    r.want(before === "{" ? "{}" : "}");
    return value;
  };
}
