// What happens, in order. The page says NOT VERIFIED until this has come to its end.

const script = document.currentScript;

// wholePage is the document as it was read, all but the digest that the script element carries, with that digest. It has to
// be taken before anything is changed.
function wholePage() {
  const digest = script.getAttribute("data-digest");
  script.setAttribute("data-digest", "");
  const { doctype, childNodes, compatMode } = document;
  return {
    digest,
    html: document.documentElement.outerHTML,
    plain: compatMode === "CSS1Compat" && childNodes.length === 2 && doctype?.name === "html" && doctype.publicId === "" && doctype.systemId === "",
    evidence: document.getElementById("evidence")?.textContent ?? "",
  };
}

const words = {
  checking: ["NOT VERIFIED YET", "The checks are running."],
  changed: ["NOT VERIFIED"],
  otherkey: ["NOT VERIFIED: another key",
    "The file fits together, but under another key than the one whose fingerprint you gave. Unless you mistyped it, this is not from the log that you mean, whatever it says."],
  cannot: ["CANNOT TELL"],
  genuine: ["GENUINE if the key is"],
  verified: ["VERIFIED"],
};

function say(parts, state, sentence = words[state][1]) {
  const title = words[state][0];
  const shows = state === "genuine" || state === "verified";
  parts.record.hidden = parts.technical.hidden = parts.limits.hidden = !shows;
  parts.key.hidden = !shows && state !== "otherkey";
  // Bad news is red even where the style was not let in.
  const tinted = (tag, text) => {
    const font = el("font", "", visible(text));
    if (!shows) font.color = "#c5221f";
    return el(tag, "", font);
  };
  const checked = el("p", "note", `Checked by this browser on ${inWords(new Date().toISOString())}.`);
  document.title = `${title} - auditchain evidence`;
  parts.verdict.dataset.state = state;
  parts.verdict.replaceChildren(tinted("h1", title), tinted("p", sentence), ...(state === "checking" ? [] : [checked]));
}

async function start() {
  const page = wholePage();
  const parts = makeLayout();
  say(parts, "checking");
  try {
    await check(page, parts);
  } catch (error) {
    say(parts, "changed", "The checks did not come to their end: " + error.message);
  }
}

async function check(page, parts) {
  const can = window.isSecureContext && window.crypto?.subtle && (await selfTest().catch(() => false));
  if (!can) {
    say(parts, "cannot", "This browser cannot check signatures (Ed25519) here, so nothing has been checked. Open the file itself, not a copy on a web server, " +
      "in a Firefox, Chrome, Edge or Safari of 2025 or later, or check it with: auditchain verify-evidence FILE --key KEY");
    return;
  }
  const steps = [{ code: "page", ok: false, text: "The file was changed after it was made. (A browser's add-on that writes into pages looks like that, too.)" }];
  const digest = hex(await sha256(encoder.encode(page.html)));
  if (digest === page.digest && page.plain) steps[0] = { code: "page", ok: true, text: `SHA-256 ${digest}.` };
  let e, found;
  try {
    e = readEvidence(page.evidence);
    found = await verifyEvidence(e);
    steps.push(...found.steps);
  } catch (error) {
    steps.push({ code: "entry", ok: false, text: "The evidence in this file cannot be read: " + error.message });
  }
  parts.steps.replaceChildren(...steps.map((s) => showStep(s.code, s.ok ? "ok" : "bad", s.text)));
  parts.checks.hidden = false;
  const bad = steps.filter((s) => !s.ok);
  if (bad.length > 0 || steps.length !== 6) {
    say(parts, "changed", `Do not rely on this file: ${bad.map((s) => stepWords[s.code][2]).join("; ")}. The record is not shown.`);
    return;
  }
  showRecord(e, found.entry, parts.recordBody);
  showTechnical(found, parts.technicalBody);
  showComparison(found.manifest, parts.comparison);
  showMade(e, parts.madeBody);
  parts.fingerprint.replaceChildren(groups(found.fingerprint));
  await watchKey(e, found, parts);
}

// watchKey gives the verdict that is left: whether the key is the one that the reader was told of.
async function watchKey(e, found, parts) {
  const fact = `This is entry ${found.entry.seq} of the log ${e.chain}, unchanged since it was sealed on ${inWords(found.manifest.sealed_at)}`;
  const trust = (state, text) => {
    parts.steps.querySelector('[data-step="trust"]')?.remove();
    parts.steps.append(showStep("trust", state, text));
    parts.compared.replaceChildren(visible(text));
  };
  let turn = 0;
  const compare = async () => {
    const mine = ++turn;
    const given = await givenFingerprint(parts.typed.value).catch((error) => error);
    if (mine !== turn) return; // something else was typed meanwhile
    if (given === found.fingerprint) {
      trust("ok", "It is the fingerprint that you gave.");
      say(parts, "verified", fact + ", under the key whose fingerprint you gave.");
    } else if (typeof given === "string" && given !== "") {
      trust("bad", "You gave another fingerprint: " + given);
      say(parts, "otherkey");
    } else {
      trust("open", given === "" ? "You have not compared it yet." : given.message);
      say(parts, "genuine", fact + ", if the key with the fingerprint below really is that log's. Compare it with the fingerprint that you were given in another way.");
    }
  };
  parts.typed.addEventListener("input", compare);
  await compare();
}

// givenFingerprint reads 64 hex digits, however they are grouped, or a public key in PEM. It returns "" for nothing.
async function givenFingerprint(text) {
  const pem = /-----BEGIN PUBLIC KEY-----([\sA-Za-z0-9+/=]*)-----END PUBLIC KEY-----/.exec(text);
  if (pem) return hex(await sha256(fromBase64(pem[1].replace(/\s/g, ""))));
  const digits = text.toLowerCase().replace(/^\s*sha-?256:/, "").replace(/[\s:]/g, "");
  if (digits === "" || isHash(digits)) return digits;
  if (/[^0-9a-f]/.test(digits)) throw new Error("What you typed is no fingerprint: it has other characters than 0 to 9 and a to f.");
  throw new Error(`What you typed has ${digits.length} digits; a fingerprint has 64.`);
}

document.addEventListener("DOMContentLoaded", start);

// On paper everything is open.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
