// What happens, in order. The page says NOT VERIFIED until this has come to its end.

const script = document.currentScript;

// wholePage is the document as it was read, all but the digest that the script element carries, with that digest. It has to
// be taken before anything is changed.
function wholePage() {
  const digest = script.getAttribute("data-digest");
  script.setAttribute("data-digest", "");
  const html = document.documentElement.outerHTML;
  const plain = document.compatMode === "CSS1Compat" && document.childNodes.length === 2 && document.doctype?.name === "html" &&
    document.doctype.publicId === "" && document.doctype.systemId === "";
  return { html, digest, plain };
}

const words = {
  checking: ["Not verified yet", "The checks are running."],
  changed: ["Not verified"],
  otherkey: ["Not verified: another key",
    "The file fits together, but under another key than the one whose fingerprint you gave. It is not from the log that you mean."],
  cannot: ["Cannot tell"],
  genuine: ["Genuine if the key is genuine"],
  verified: ["Verified"],
};

function say(state, sentence = words[state][1]) {
  const verdict = byId("verdict");
  verdict.dataset.state = state;
  const title = words[state][0];
  verdict.replaceChildren(el("h1", "", title), el("p", "", visible(sentence)));
  document.title = `${title} - auditchain evidence`;
  for (const id of ["key", "record", "technical"]) byId(id).hidden = !["genuine", "verified"].includes(state);
  if (state === "otherkey") byId("key").hidden = false;
}

async function start() {
  const page = wholePage();
  say("checking");
  try {
    byId("limits").hidden = false;
    await check(page);
  } catch (error) {
    say("changed", "The checks could not be brought to their end: " + error.message);
  }
}

async function check(page) {
  const can = window.isSecureContext && window.crypto?.subtle && (await selfTest().catch(() => false));
  if (!can) {
    say("cannot", "This browser cannot check signatures (Ed25519) here, so nothing has been checked. Open the file itself, not a copy on a web server, " +
      "in a Firefox, Chrome, Edge or Safari of 2025 or later, or check it with: auditchain verify-evidence FILE --key KEY");
    return;
  }
  const steps = [{ code: "page", ok: true, text: "" }];
  const digest = hex(await sha256(encoder.encode(page.html)));
  if (digest !== page.digest || !page.plain) {
    steps[0] = { code: "page", ok: false, text: "The file has been changed since it was made. (A browser's add-on that writes into pages looks like that, too.)" };
  } else {
    steps[0].text = `SHA-256 ${digest}.`;
  }
  let e, found;
  try {
    e = readEvidence(byId("evidence").textContent);
    found = await verifyEvidence(e);
    steps.push(...found.steps);
  } catch (error) {
    steps.push({ code: "entry", ok: false, text: "The evidence in this file cannot be read: " + error.message });
  }
  const list = byId("steplist");
  list.replaceChildren(...steps.map((s) => showStep(s.code, s.ok ? "ok" : "bad", s.text)));
  byId("steps").hidden = false;
  const bad = steps.filter((s) => !s.ok);
  if (bad.length > 0 || steps.length !== 6) {
    say("changed", "Do not rely on this file. " + (bad.length === 1 ? "One of its checks does not hold: " : `${bad.length} of its checks do not hold: `) +
      bad.map((s) => stepWords[s.code][0].toLowerCase()).join("; ") + ". The record is not shown.");
    return;
  }
  const first = await parseKey(found.head.genesis.genesis.manifest_key);
  found.head.firstKind = first.kind;
  showRecord({ chain: e.chain, entry: found.entry, entryBytes: e.entry }, byId("recordbody"));
  showTechnical(e, found, byId("technicalbody"));
  showMade(e, byId("madebody"));
  byId("made").hidden = false;
  byId("fingerprint").replaceChildren(groups(found.fingerprint));
  await watchKey(e, found, list);
}

// watchKey gives the verdict that is left: whether the key is the one that the reader was told of.
async function watchKey(e, found, list) {
  const typed = byId("typed");
  typed.value = ""; // what stands there has to come from the reader
  const fact = `This is entry ${found.entry.seq} of the log ${e.chain}, unchanged since it was sealed at ${when(found.manifest.sealed_at)}`;
  const trust = (state, text) => {
    const li = showStep("trust", state, text);
    list.querySelector('[data-step="trust"]')?.remove();
    list.append(li);
    byId("compared").replaceChildren(visible(text));
  };
  let turn = 0;
  const compare = async () => {
    const mine = ++turn;
    const given = await givenFingerprint(typed.value).catch((error) => error);
    if (mine !== turn) return;
    if (given === found.fingerprint) {
      trust("ok", "It has the fingerprint that you gave.");
      say("verified", fact + ", under the key whose fingerprint you gave.");
    } else if (typeof given === "string" && given !== "") {
      trust("bad", "You gave another fingerprint: " + given);
      say("otherkey");
    } else {
      trust("open", given === "" ? "You have not yet compared it." : given.message);
      say("genuine", fact + ", if the key with the fingerprint below is really the one of that log. Compare it with the one that you were given.");
    }
  };
  typed.addEventListener("input", compare);
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
