// Putting text on the page. All of it goes through text nodes; nothing that is shown is ever read as HTML.

function el(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children.filter((c) => c !== undefined));
  return e;
}

// Characters that cannot be seen, or that change the direction of what stands around them.
const unseen = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufffd]/gu;

// visible shows text with such characters by their numbers; lines says that line feeds and tabs may do their work.
function visible(text, lines = false) {
  const f = document.createDocumentFragment();
  let from = 0;
  for (const m of text.matchAll(unseen)) {
    if (lines && (m[0] === "\n" || m[0] === "\t")) continue;
    f.append(text.slice(from, m.index), el("span", "unseen", "U+" + m[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")));
    from = m.index + m[0].length;
  }
  f.append(text.slice(from));
  return f;
}

// clipped is visible of a text's first part, and says how much is left out.
function clipped(text, limit, lines) {
  if (text.length <= limit) return visible(text, lines);
  const f = visible(text.slice(0, limit), lines);
  f.append(el("span", "cut", ` \u2026 ${text.length - limit} more characters are not shown here`));
  return f;
}

// code is text in which letters have to be told apart. It is a paragraph of its own in matters of direction.
function code(text) {
  return el("code", "", visible(text));
}

// groups breaks a hash up for reading.
function groups(hexDigits) {
  const e = el("code", "groups");
  for (const g of hexDigits.match(/.{4}/g)) e.append(el("span", "", g), " ");
  return e;
}

// when is a time of the format as people read it.
function when(time) {
  const [, date, clock, fraction] = /^(.*)T(.*)\.(\d{9})Z$/.exec(time);
  const digits = fraction.replace(/0+$/, "");
  return `${date} ${clock}${digits && "." + digits} UTC`;
}

const months = "January February March April May June July August September October November December".split(" ");

// inWords is the same for a sentence, to the second.
function inWords(time) {
  const [, year, month, day, clock] = /^(\d+)-(\d+)-(\d+)T(.{8})/.exec(time);
  return `${Number(day)} ${months[month - 1]} ${year} at ${clock} UTC`;
}

function row(label, ...value) {
  const dd = el("dd", "", ...value);
  return [el("dt", "", ...(Array.isArray(label) ? label : [label])), dd];
}

function list(...rows) {
  return el("dl", "", ...rows.filter(Boolean).flat());
}

const maxTokens = 6000;
const maxToken = 8000;

// pretty writes JSON as it stands, digit by digit and escape by escape, on lines of its own. It returns whether that was all.
function pretty(text, into) {
  let depth = 0, tokens = 0, whole = true;
  const line = () => into.append("\n" + "  ".repeat(depth));
  for (let i = 0; i < text.length; ) {
    if (++tokens > maxTokens) {
      into.append("\n");
      into.append(el("span", "cut", `\u2026 ${text.length - i} more characters are not shown here`));
      return false;
    }
    const c = text[i];
    let end = i + 1;
    if (c === '"') {
      end = stringEnd(text, i);
      const raw = text.slice(i, end);
      whole &&= raw.length <= maxToken;
      into.append(el("span", text[end] === ":" ? "k" : "s", clipped(raw, maxToken)));
    } else if (c === "{" || c === "[") {
      into.append(c);
      if (text[end] === "}" || text[end] === "]") {
        into.append(text[end++]);
      } else {
        depth++;
        line();
      }
    } else if (c === "}" || c === "]") {
      depth--;
      line();
      into.append(c);
    } else if (c === ",") {
      into.append(c);
      line();
    } else if (c === ":") {
      into.append(": ");
    } else {
      while (end < text.length && !/[,\]}]/.test(text[end])) end++;
      const raw = text.slice(i, end);
      whole &&= raw.length <= maxToken;
      into.append(el("span", "n", clipped(raw, maxToken)));
    }
    i = end;
  }
  return whole;
}
