// Bytes, their hashes, and their spellings.

const encoder = new TextEncoder();

function join(...parts) {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

function hex(bytes) {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

const base64Digits = (() => {
  const digits = new Uint8Array(128).fill(255);
  [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].forEach((c, i) => (digits[c.charCodeAt(0)] = i));
  return digits;
})();

// fromBase64 takes the standard alphabet with padding and nothing else. strict also refuses stray bits before the
// padding, so that the same bytes have one spelling. (atob takes white space, and text without padding.)
function fromBase64(text, strict = true) {
  const pad = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const out = new Uint8Array((text.length >> 2) * 3 - pad);
  let bits = 0, held = 0, at = 0, bad = text.length % 4;
  for (let i = 0; i < text.length - pad; i++) {
    const c = text.charCodeAt(i);
    const d = c < 128 ? base64Digits[c] : 255;
    bad |= d & 128;
    bits = ((bits << 6) | d) & 0xffff;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out[at++] = bits >> held;
    }
  }
  if (bad || (strict && (bits & ((1 << held) - 1)) !== 0)) throw new Error("not base64 in its one spelling");
  return out;
}

function toBase64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

// utf8 refuses what is not UTF-8 and keeps a byte order mark, so that no two byte strings give one text.
function utf8(bytes) {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

function isHash(text) {
  return /^[0-9a-f]{64}$/.test(text);
}

// isTime takes RFC 3339 in UTC with nine fraction digits, of days that there are.
function isTime(text) {
  const m = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.\d{9}Z$/.exec(text);
  if (!m) return false;
  const [year, month, day, hour, minute, second] = m.slice(1).map(Number); // two to four digits: exact
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
  return days !== undefined && day >= 1 && day <= days && hour < 24 && minute < 60 && second < 60;
}

const maxUint64 = (1n << 64n) - 1n;

// uint64 reads a decimal number without leading zeros; undefined if it is none. BigInt, since doubles end at 2^53.
function uint64(digits) {
  if (!/^(0|[1-9][0-9]{0,19})$/.test(digits)) return undefined;
  const n = BigInt(digits);
  return n <= maxUint64 ? n : undefined;
}
