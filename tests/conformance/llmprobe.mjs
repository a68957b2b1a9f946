// Whether llmprobe's report (--save) is as it has to be: node llmprobe.mjs REPORT
import { readFileSync } from "node:fs";

// What cannot be had or cannot be asked here, see docs/conformance.md.
const absent = new RegExp(
  "-(vision|rate-limit-headers|tool-args-literal-delimiter)$|^responses-(reasoning-roundtrip|mcp-tools)$|^(images|audio)-",
);
// Tokens from the cache are no part of `input_tokens` in Messages, so they may well be more.
const mistaken = new Set(["messages-cache-bound", "messages-cache-prefix-bound"]);

const { coverage, conformance, incomplete } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wrong = incomplete ? [incomplete] : [];
for (const { id, tier, label, supported, detail } of coverage.entries) {
  if (tier !== "frontier" && id !== "vision" && !supported) wrong.push(`${label}: ${detail ?? "not probed"}`);
}
for (const { id, name, outcome, reason, failures } of conformance.results) {
  if (outcome !== "pass" && outcome !== "fail" && !absent.test(id)) wrong.push(`${name}: ${outcome}: ${reason}`);
  for (const { id, severity, message } of failures) {
    if (severity === "MUST" && !mistaken.has(id)) wrong.push(`${name}: ${message}`);
  }
}
for (const line of wrong) console.error(line);
process.exit(wrong.length ? 1 : 0);
