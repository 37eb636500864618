// Entry lines: docs/FORMAT.md, section 2.

const maxLine = 64 << 20;

function parseEntry(bytes) {
  if (bytes.length > maxLine) throw new Error("the entry is too long");
  const text = utf8(bytes);
  const r = new Reader(text);
  const value = () => {
    const from = r.i;
    r.i = strictValue(text, from);
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
  e.conflict = e.redelivered && r.has(',"conflict":true');
  if (!e.redelivered && r.has(',"event":"')) {
    e.event = r.match(/[^"\\\u0000-\u001f]*/y, "the event's name"); // which needs no escapes
    r.want('","detail":');
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
